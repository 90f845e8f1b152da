// Package conformance runs the Gateway API's own suite; `cargo xtask conformance` says against what.
package conformance

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

func TestConformance(t *testing.T) {
	conformance.RunConformance(t)
}
