//! The configuration of a node's programs.

use anyhow::Result;
use serde_json::{Value, json};

use crate::addresses::{DNS_SERVICE, PODS, pods};
use crate::home::{self, Home};
use crate::programs::Programs;

use super::runtime::{Runtime, SOCKET};

/// The image that holds a pod's namespaces.
pub(crate) const PAUSE: &str = "mesh.dev/pause:1";

/// Writes every file into the node's directory.
pub(super) fn write(home: &Home, node: &str, index: u8, programs: &Programs) -> Result<()> {
    let directory = home.node(node);
    let runtime = Runtime::of(usize::from(index)).config(&directory, programs);
    home::write(&directory.join("containerd.toml"), &runtime)?;
    let json = |name: &str, value: &Value| home::write(&directory.join(name), &format!("{value:#}"));
    json("net.d/10-mesh-kube.conflist", &network(index))?;
    json("kubelet.yaml", &kubelet(home, node))?;
    json("proxy.yaml", &proxy(home, node))?;
    // Names are resolved by the cluster alone.
    home::write(&directory.join("resolv.conf"), "")?;
    Ok(())
}

fn network(index: u8) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "mesh-kube",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": pods(index)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

fn kubelet(home: &Home, node: &str) -> Value {
    let pki = home.certificates();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": pki.join("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": pki.join(format!("{node}-server.crt")),
        "tlsPrivateKeyFile": pki.join(format!("{node}-server.key")),
        "clusterDomain": "cluster.local",
        "clusterDNS": [DNS_SERVICE],
        "resolvConf": home.node(node).join("resolv.conf"),
        "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": false,
        "failSwapOn": false,
        "enforceNodeAllocatable": [],
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": false,
        // An image that is evicted cannot be pulled again: there is no registry.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "64Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        "registerNode": true,
    })
}

fn proxy(home: &Home, node: &str) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": home.file("proxy.kubeconfig")},
        "clusterCIDR": PODS,
        "hostnameOverride": node,
        "oomScoreAdj": 0,
        // These belong to the machine, not to a namespace.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    })
}
