//go:build tools

// Package tools pins versitygw, the S3 server of the tests. It has a module of its own because nothing of it is the
// cluster's.
package tools

import _ "github.com/versity/versitygw/cmd/versitygw"
