//! The shop joins the mesh and gets its waypoint; both nodes' metrics say by which identities a checkout goes.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use mesh_lab::wait_until;

use super::Shop;
use crate::claim::claim;
use crate::screen::Screen;
use crate::stage::{NODES, PATIENCE};
use crate::traffic::short;

pub(super) fn show(shop: &mut Shop, screen: &Screen) -> Result<String> {
    shop.stage.deploy(screen)?;
    for (index, node) in NODES.into_iter().enumerate() {
        screen.progress(format!("starting mesh-node on {node}"));
        shop.stage.start_daemon(index)?;
    }
    shop.stage.lab.label_namespace(mesh_shop::catalogue::NAMESPACE, "mesh.dev/join", "enabled")?;
    for index in 0..NODES.len() {
        shop.stage.wait_enrolled(index)?;
    }
    screen.progress("starting mesh-waypoint");
    shop.stand_before()?;
    let (waypoint, replica) = shop.waypoint.as_ref().context("no waypoint was started")?;
    screen.say("the namespace is in the mesh, and labelled istio.io/use-waypoint: waypoint");
    let servers = ["frontend", "cart", "product", "order", "payment"];
    let identity = waypoint.identity();
    let reached = wait_until("a checkout by way of the waypoint", PATIENCE, || {
        let answer = shop.stage.purchase.buy(shop.shopper()?)?;
        let address = mesh_lab::Place::addresses(replica);
        let by_waypoint = |hop: &&mesh_shop::Hop| {
            hop.peer.parse().is_ok_and(|peer: std::net::SocketAddr| address.contains(&peer.ip()))
        };
        let names: BTreeSet<_> = answer.hops.iter().filter(by_waypoint).map(|hop| hop.service.clone()).collect();
        Ok(servers.iter().all(|server| names.contains(*server)).then_some(answer))
    })?;
    screen.say(reached.summary());
    let mut opened = 0.0;
    for daemon in shop.stage.both_daemons()? {
        let labels = [("reporter", "destination"), ("source_principal", identity.as_str())];
        let of = |more: (&'static str, &'static str)| -> Result<f64> {
            Ok(daemon.metrics()?.sum("istio_tcp_connections_opened_total", &[labels[0], labels[1], more]))
        };
        opened += of(("connection_security_policy", "mutual_tls"))?;
        claim(of(("connection_security_policy", "none"))? == 0.0, "no plaintext from the waypoint", "some")?;
    }
    claim(opened >= servers.len() as f64, "each server to be reached by the waypoint over mTLS", opened)?;
    screen.say(format!("{opened} connections from {} to the shop's servers, all over mTLS", short(&identity)));
    Ok(format!("{} servers reached by way of the waypoint alone, over mTLS", servers.len()))
}
