module opengpu.network/localcluster/provisioner

go 1.25.0

require github.com/rancher/local-path-provisioner v0.0.30
