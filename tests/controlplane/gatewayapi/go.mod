module opengpu.network/tests/gatewayapi

go 1.25.5

require sigs.k8s.io/gateway-api v1.4.1
