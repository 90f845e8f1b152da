// Command dns is CoreDNS with the plugins that a cluster's DNS and the Gateway API's suite need, and no others: the rest is
// most of its size.
package main

import (
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/whoami"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
)

func main() {
	// The order in which a question passes them.
	dnsserver.Directives = []string{"errors", "log", "health", "ready", "cache", "kubernetes", "whoami", "forward"}
	coremain.Run()
}
