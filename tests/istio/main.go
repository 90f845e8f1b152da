// Command subscriber asks a control plane for what Istio's node proxies ask for, by Istio's own message types, and
// prints what it is told: a JSON object a line, until it has been told everything once.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"istio.io/istio/pkg/workloadapi"
	"istio.io/istio/pkg/workloadapi/security"
)

const (
	addressType       = "type.googleapis.com/istio.workload.Address"
	authorizationType = "type.googleapis.com/istio.security.Authorization"
)

func main() {
	address := flag.String("address", "", "host:port of the control plane")
	roots := flag.String("roots", "", "file of the certificates that its own is verified with (PEM)")
	serverName := flag.String("server-name", "", "name that its certificate has")
	token := flag.String("token", "", "file with the token to show")
	flag.Parse()
	if err := run(*address, *roots, *serverName, *token); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(address, roots, serverName, token string) error {
	pem, err := os.ReadFile(roots)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s has no certificate", roots)
	}
	bearer, err := os.ReadFile(token)
	if err != nil {
		return err
	}
	transport := credentials.NewTLS(&tls.Config{RootCAs: pool, ServerName: serverName, MinVersion: tls.VersionTLS12})
	connection, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(transport))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+strings.TrimSpace(string(bearer)))
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(connection).DeltaAggregatedResources(ctx)
	if err != nil {
		return err
	}
	waiting := map[string]bool{addressType: true, authorizationType: true}
	for kind := range waiting {
		if err := stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: kind}); err != nil {
			return err
		}
	}
	for len(waiting) > 0 {
		response, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, resource := range response.Resources {
			if err := tell(resource); err != nil {
				return err
			}
		}
		// A control plane of ours names the state once all of it is told.
		if response.SystemVersionInfo != "" {
			delete(waiting, response.TypeUrl)
		}
		answer := &discovery.DeltaDiscoveryRequest{TypeUrl: response.TypeUrl, ResponseNonce: response.Nonce}
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
	return stream.CloseSend()
}

// tell prints a resource. Whatever of it Istio's messages have no field for is an error.
func tell(resource *discovery.Resource) error {
	message, err := resource.Resource.UnmarshalNew()
	if err != nil {
		return fmt.Errorf("%s: %w", resource.Name, err)
	}
	known := false
	switch message := message.(type) {
	case *workloadapi.Address:
		known = len(message.ProtoReflect().GetUnknown()) == 0 &&
			len(message.GetWorkload().ProtoReflect().GetUnknown()) == 0 &&
			len(message.GetService().ProtoReflect().GetUnknown()) == 0
	case *security.Authorization:
		known = len(message.ProtoReflect().GetUnknown()) == 0
	}
	if !known {
		return fmt.Errorf("%s: %s says what Istio has no field for", resource.Name, resource.Resource.TypeUrl)
	}
	said, err := protojson.Marshal(message)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"name": resource.Name, "type": resource.Resource.TypeUrl, "aliases": resource.Aliases, "says": json.RawMessage(said),
	})
}
