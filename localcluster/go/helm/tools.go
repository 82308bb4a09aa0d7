//go:build tools

// Package tools pins helm. It has a module of its own because it wants a newer client-go than the cluster.
package tools

import _ "helm.sh/helm/v4/cmd/helm"
