module opengpu.network/kompose

go 1.25.0

require github.com/kubernetes/kompose v1.38.0

// The tag v3.9.0 was removed upstream; kompose's own go.mod carries the same replacement.
replace github.com/openshift/api v3.9.0+incompatible => github.com/openshift/api v0.0.0-20230704153349-abb98ff04d03
