//! Pods, Services, waypoints and hosts outside, one by one.
use mesh_xds::istio_proto::{
    LoadBalancingMode, LoadBalancingScope as Scope, NetworkMode, Port, TunnelProtocol, WorkloadStatus, WorkloadType,
};
use mesh_xds::{ADDRESS_TYPE, AUTHORIZATION_TYPE};

use crate::Control;

const SHOP: &str = r#"
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {mesh.dev/join: enabled}}}
---
apiVersion: v1
kind: Node
metadata: {name: a, labels: {topology.kubernetes.io/region: north, topology.kubernetes.io/zone: north-1}}
---
apiVersion: v1
kind: Pod
metadata:
  name: cart-7d4b9c6f5-x2x7x
  namespace: shop
  uid: u1
  labels: {app: cart, version: v2, pod-template-hash: 7d4b9c6f5}
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: cart-7d4b9c6f5, controller: true, uid: r1}]
spec: {nodeName: a, serviceAccountName: cart, containers: [{name: c}]}
status:
  podIP: 10.0.0.1
  podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]
  conditions: [{type: Ready, status: "True"}]
---
apiVersion: v1
kind: Pod
metadata: {name: host, namespace: shop, uid: u2}
spec: {nodeName: b, hostNetwork: true, containers: [{name: c}]}
status: {podIP: 192.168.0.2, podIPs: [{ip: 192.168.0.2}], conditions: [{type: Ready, status: "False"}]}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop, labels: {istio.io/use-waypoint: wp}}
spec: {trafficDistribution: PreferSameZone, clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, "fd96::1"], ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
addressType: IPv4
metadata: {name: cart-x, namespace: shop, labels: {kubernetes.io/service-name: cart}}
endpoints:
  - {addresses: [10.0.0.1], conditions: {ready: true}, targetRef: {kind: Pod, name: cart-7d4b9c6f5-x2x7x, namespace: shop}}
  - {addresses: [203.0.113.9], conditions: {ready: true}}
ports: [{name: http, port: 8080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: shop}
spec: {gatewayClassName: mesh-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: v1
kind: Pod
metadata: {name: wp-1, namespace: shop, uid: u3, labels: {gateway.networking.k8s.io/gateway-name: wp, mesh.dev/join: disabled}}
spec: {nodeName: a, serviceAccountName: wp, containers: [{name: c}]}
status: {podIP: 10.0.0.3, podIPs: [{ip: 10.0.0.3}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside, namespace: shop}
spec:
  hosts: [api.example.com]
  resolution: DNS
  ports: [{number: 443, name: tls, protocol: TLS}]
  endpoints: [{address: eu.example.com, weight: 7, locality: south/south-2, ports: {tls: 8443}}]
  subjectAltNames: [api.example.com]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-web, namespace: shop}
spec:
  selector: {matchLabels: {app: cart}}
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
"#;

const LATE: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: late, namespace: shop, uid: u9}
spec: {nodeName: a, containers: [{name: c}]}
status: {podIP: 10.0.0.9}
"#;

#[test]
fn a_pod_says_who_it_is_where_it_runs_and_what_it_is_part_of() {
    let control = Control::of(SHOP);
    let told = control.told();
    let cart = &told.workloads["Kubernetes//Pod/shop/cart-7d4b9c6f5-x2x7x"];
    assert_eq!((&*cart.uid, &*cart.cluster_id), ("Kubernetes//Pod/shop/cart-7d4b9c6f5-x2x7x", "Kubernetes"));
    assert_eq!((&*cart.namespace, &*cart.service_account, &*cart.node), ("shop", "cart", "a"));
    assert_eq!((&*cart.trust_domain, cart.tunnel_protocol()), ("cluster.local", TunnelProtocol::Hbone));
    assert_eq!((&*cart.workload_name, cart.workload_type()), ("cart", WorkloadType::Deployment));
    assert_eq!((&*cart.canonical_name, &*cart.canonical_revision), ("cart", "v2"));
    assert_eq!((cart.status(), cart.network_mode()), (WorkloadStatus::Healthy, NetworkMode::Standard));
    let locality = cart.locality.as_ref().unwrap();
    assert_eq!((&*locality.region, &*locality.zone), ("north", "north-1"));
    assert_eq!(cart.addresses[0], [10, 0, 0, 1][..]);
    assert_eq!(cart.addresses[1].len(), 16);
    let ports = &cart.services["shop/cart.shop.svc.cluster.local"].ports;
    assert_eq!(ports[..], [Port { service_port: 80, target_port: 8080 }]);
    let [written, strict] = &cart.authorization_policies[..] else { panic!("{:?}", cart.authorization_policies) };
    assert_eq!(written, "shop/only-web");
    assert!(strict.starts_with("istio-system/mesh-strict-"), "{strict}");
    assert!(told.policies.contains_key(strict) && told.policies.contains_key(written));

    let resource = &control.all(ADDRESS_TYPE)["Kubernetes//Pod/shop/cart-7d4b9c6f5-x2x7x"];
    assert_eq!(resource.aliases, ["/10.0.0.1", "/fd00::1"]);
}

#[test]
fn what_is_no_pod_of_its_own_is_told_apart() {
    let told = Control::of(SHOP).told();
    let host = &told.workloads["Kubernetes//Pod/shop/host"];
    assert_eq!((host.network_mode(), host.tunnel_protocol()), (NetworkMode::HostNetwork, TunnelProtocol::None));
    assert_eq!((host.status(), host.workload_type()), (WorkloadStatus::Unhealthy, WorkloadType::Pod));
    let waypoint = &told.workloads["Kubernetes//Pod/shop/wp-1"];
    assert_eq!((waypoint.native_tunnel, waypoint.tunnel_protocol()), (true, TunnelProtocol::Hbone));
    let outside = &told.workloads["Kubernetes/mesh.dev/Address//203.0.113.9"];
    assert_eq!((outside.tunnel_protocol(), outside.services.len()), (TunnelProtocol::None, 1));
    let name = &told.workloads["Kubernetes/mesh.dev/Name//eu.example.com"];
    assert_eq!((&*name.hostname, name.addresses.len(), name.capacity), ("eu.example.com", 0, Some(7)));
    assert_eq!(name.locality.as_ref().unwrap().zone, "south-2");
    let ports = &name.services["shop/api.example.com"].ports;
    assert_eq!(ports[..], [Port { service_port: 443, target_port: 8443 }]);
}

#[test]
fn a_service_says_where_it_is_and_by_which_waypoint() {
    let control = Control::of(SHOP);
    let told = control.told();
    let cart = &told.services["shop/cart.shop.svc.cluster.local"];
    assert_eq!(cart.addresses.len(), 2);
    assert_eq!(cart.ports[..], [Port { service_port: 80, target_port: 0 }], "UDP is not carried");
    let spread = cart.load_balancing.as_ref().unwrap();
    let scopes: Vec<_> = spread.routing_preference().collect();
    assert_eq!((spread.mode(), scopes), (LoadBalancingMode::Failover, vec![Scope::Region, Scope::Zone]));
    let waypoint = cart.waypoint.as_ref().unwrap();
    assert_eq!(waypoint.hbone_mtls_port, 15_008);
    assert_eq!(waypoint.hostname.as_ref().unwrap().hostname, "wp.shop.svc.cluster.local");
    assert_eq!(control.all(ADDRESS_TYPE)["shop/cart.shop.svc.cluster.local"].aliases, ["/10.96.0.1", "/fd96::1"]);
    assert_eq!(told.services["shop/api.example.com"].subject_alt_names, ["api.example.com"]);
}

/// Only what differs is sent: a pod that comes is one resource.
#[test]
fn a_change_is_told_alone() {
    let mut control = Control::of(SHOP);
    let before = [control.all(ADDRESS_TYPE), control.all(AUTHORIZATION_TYPE)];
    control.read(&format!("{SHOP}---\n{LATE}"));
    let mut after = control.all(ADDRESS_TYPE);
    assert!(after.remove("Kubernetes//Pod/shop/late").is_some());
    assert_eq!([after, control.all(AUTHORIZATION_TYPE)], before);
}
