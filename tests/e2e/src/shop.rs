//! The shop on both nodes of a mesh, and somebody who buys without end.

use anyhow::Result;
use mesh_lab::{Place as _, Pod, PodSpec, Process, ServiceSpec};
use mesh_shop::catalogue::{NAMESPACE, Workload, catalogue};

use crate::{Mesh, NODES, PATIENCE};

/// What a checkout is, as any HTTP client asks for it.
const CHECKOUT: &str = "http://frontend.shop:8080/checkout?user=ada&item=book&card=4000-0000&marker=m";

/// The open shop.
pub struct Shop {
    /// Its pods and the shopper, who is last.
    pub pods: Vec<Pod>,
    shopping: Process,
}

impl Shop {
    /// Deploys the shop, enrols it and begins to buy, five times a second.
    pub fn open(mesh: &Mesh) -> Result<Self> {
        mesh.lab.namespace(NAMESPACE)?;
        mesh.lab.label_namespace(NAMESPACE, "mesh.dev/join", "enabled")?;
        let mut pods = Vec::new();
        for workload in catalogue() {
            pods.push(mesh.join(pod(workload))?);
            let port = workload.protocol.port_name();
            let service = ServiceSpec::new(NAMESPACE, workload.service).select("app", workload.service);
            if pods.iter().filter(|pod| pod.name().starts_with(workload.service)).count() == 1 {
                mesh.lab.service(service.port(port, workload.port, workload.port))?;
            }
        }
        let shopper = PodSpec::new(NAMESPACE, "shopper").on(NODES[1]).service_account("shopper");
        let shopper = mesh.join(shopper.label("app", "shopper"))?;
        mesh.settle()?;
        let buy = format!(
            "while :; do curl -sS --max-time 10 -o /dev/null -w '%{{http_code}}\\n' '{CHECKOUT}'; sleep 0.2; done"
        );
        let mut shopping = shopper.spawn(&["sh", "-c", &buy])?;
        shopping.wait_for_line("200", PATIENCE)?;
        pods.push(shopper);
        Ok(Self { pods, shopping })
    }

    /// How often somebody has bought something.
    pub fn sold(&self) -> usize {
        self.shopping.stdout().lines().filter(|line| *line == "200").count()
    }
}

fn pod(workload: &Workload) -> PodSpec {
    let mut command = vec!["mesh-shop".to_owned()];
    command.extend(workload.arguments());
    let spec = PodSpec::new(NAMESPACE, workload.name)
        .on(NODES[workload.node])
        .service_account(workload.service_account)
        .port(workload.protocol.port_name(), workload.port)
        // Each request has a connection of its own.
        .env("CONNECTION_MAX_AGE_MS", "0")
        .command(command);
    workload.labels().iter().fold(spec, |spec, (key, value)| spec.label(key, value))
}
