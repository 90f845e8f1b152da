//! Node and Control: the daemons, their pods and certificates, and the authority.

use super::{Board, Panel, rate, row, variable};

const HERE: &str = "instance=\"$instance\"";

pub(super) fn board() -> Board {
    Board {
        uid: "mesh-node",
        title: "Mesh / Node and Control",
        about: "One daemon: what it holds, what it refuses, and what the kernel does for it",
        variables: vec![variable("instance", "Daemon", "mesh_config_generation", "instance")],
        rows: vec![
            row("Now", now()),
            row("Pods and configuration", pods()),
            row("Certificates", certificates()),
            row("What it refuses and ends", refused()),
            row("The kernel", kernel()),
            row("What it costs to watch", cost()),
            row("Control: certificates and configuration for all", control()),
        ],
    }
}

fn gauge(metric: &str) -> String {
    format!("{metric}{{{HERE}}}")
}

fn now() -> Vec<Panel> {
    vec![
        Panel::stat("Answers", "none", gauge("up")).at_least(1.0, 1.0),
        Panel::stat("Generation", "none", gauge("mesh_config_generation")),
        Panel::stat("Changed", "dateTimeFromNow", format!("1000 * {}", gauge("mesh_config_changed_timestamp_seconds")))
            .about("When the configuration last changed; 0 while it is the first that was read"),
        Panel::stat("Authority reached", "none", gauge("mesh_ca_reachable")).at_least(1.0, 1.0),
        Panel::stat("Clock behind", "s", gauge("mesh_clock_behind_ca_seconds")).limits(5.0, 30.0),
        Panel::stat("Connections from before the mesh", "none", gauge("mesh_existing_connections")),
    ]
}

fn pods() -> Vec<Panel> {
    vec![
        Panel::series("Pods by state", "none", gauge("mesh_pods"), "{{state}}"),
        Panel::series("Policies in force", "none", gauge("mesh_policies"), "{{kind}}"),
        Panel::series("Findings", "none", gauge("mesh_config_findings"), "{{severity}}"),
        Panel::series("Put back, a second", "ops", rate("mesh_enrolment_repairs_total", HERE, "what"), "{{what}}")
            .about("Parts of what holds pods in the mesh that something else on the node took away"),
    ]
}

fn certificates() -> Vec<Panel> {
    vec![
        Panel::series("Certificates end in", "s", gauge("mesh_certificate_expiry_seconds"), "{{identity}}"),
        Panel::series("Renewals", "ops", rate("mesh_certificate_renewals_total", HERE, "result"), "{{result}}"),
    ]
}

fn refused() -> Vec<Panel> {
    vec![
        Panel::series(
            "Connections refused",
            "cps",
            rate("mesh_connections_refused_total", HERE, "reporter, reason"),
            "{{reason}} ({{reporter}})",
        ),
        Panel::series(
            "Connections cut",
            "cps",
            rate("mesh_connections_cut_total", HERE, "reporter, reason"),
            "{{reason}} ({{reporter}})",
        ),
        Panel::series("Tunnels turned away", "ops", rate("mesh_tunnels_rejected_total", HERE, "reason"), "{{reason}}"),
        Panel::series("Tunnels ended", "ops", rate("mesh_tunnels_ended_total", HERE, "reason"), "{{reason}}"),
    ]
}

fn kernel() -> Vec<Panel> {
    vec![
        Panel::series(
            "Redirected and passed",
            "pps",
            rate("mesh_ebpf_events_total", "instance=\"$instance\",action=~\"redirect|pass|answer\"", "action, reason"),
            "{{reason}} ({{action}})",
        ),
        Panel::series(
            "Dropped and lost",
            "pps",
            rate("mesh_ebpf_events_total", "instance=\"$instance\",action=~\"drop|lost\"", "action, reason"),
            "{{reason}} ({{action}})",
        ),
    ]
}

fn cost() -> Vec<Panel> {
    vec![
        Panel::stat("Samples a scrape", "none", gauge("scrape_samples_scraped")).limits(8000.0, 10_000.0),
        Panel::stat("A scrape takes", "s", gauge("scrape_duration_seconds")).limits(0.05, 0.5),
        Panel::series("Spans", "ops", rate("mesh_spans_total", HERE, "result"), "{{result}}"),
    ]
}

/// Of every replica, whichever daemon is chosen.
fn control() -> Vec<Panel> {
    let by_replica = |metric: &str| format!("max by (instance) ({metric})");
    vec![
        Panel::stat("Signing certificate ends in", "s", "min(mesh_ca_signer_expiry_seconds)".to_owned())
            .at_least(2_592_000.0, 604_800.0),
        Panel::stat("Roots", "none", "max(mesh_ca_roots)".to_owned()),
        Panel::stat("Revocation lists", "none", "max(mesh_ca_revocation_lists)".to_owned()),
        Panel::series("Generation served", "none", by_replica("mesh_control_config_generation"), "{{instance}}"),
        Panel::series(
            "Certificates asked for",
            "ops",
            rate("mesh_ca_requests_total", "", "instance, outcome"),
            "{{outcome}} ({{instance}})",
        ),
        Panel::series("Who is told", "none", by_replica("mesh_control_subscribers"), "{{instance}}")
            .about("Daemons, waypoints and gateways that have their configuration from a replica"),
        Panel::series("Behind", "none", by_replica("mesh_control_subscribers_behind"), "{{instance}}")
            .about("Those that have not put the generation that is served in force"),
        Panel::series("Rejecting", "none", by_replica("mesh_control_subscribers_rejecting"), "{{instance}}")
            .about("Those that have rejected something of it"),
    ]
}
