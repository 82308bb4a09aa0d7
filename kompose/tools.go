//go:build tools

// Package tools pins the version of kompose that the translator runs.
package tools

import _ "github.com/kubernetes/kompose"
