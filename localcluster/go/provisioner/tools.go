//go:build tools

// Package tools pins local-path-provisioner. It has a module of its own because its spelling of
// github.com/Sirupsen/logrus clashes with that of the other programs.
package tools

import _ "github.com/rancher/local-path-provisioner"
