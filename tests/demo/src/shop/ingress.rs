//! The way in from outside: a machine that is in no mesh buys by the gateway.

use anyhow::Result;
use mesh_lab::{Ingress, Place, wait_until};

use super::Shop;
use crate::claim::claim;
use crate::screen::Screen;
use crate::stage::{LAPTOP, NODES, PATIENCE, TRUST_DOMAIN};

/// Checkouts from outside.
const CHECKOUTS: usize = 20;

const MANIFESTS: &str = "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: door, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [\"*\"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: door, namespace: shop}
spec:
  hosts: [\"*\"]
  gateways: [door]
  http:
  - match: [{uri: {prefix: /checkout}}]
    route: [{destination: {host: frontend}}]
";

pub(super) fn show(shop: &mut Shop, screen: &Screen) -> Result<String> {
    let stage = &shop.stage;
    stage.lab.apply("ingress.yaml", MANIFESTS)?;
    screen.progress("starting the gateway");
    let gateway = Ingress::new("ingress", "gateway").port(80).label("istio", "ingressgateway");
    let gateway = gateway.start_here(&stage.lab, NODES[0])?;
    let address = gateway.ipv4().to_string();
    screen.say("a gateway for shop/door: /checkout goes to frontend, and nothing else goes anywhere");
    for number in 1..=CHECKOUTS {
        screen.progress(format!("checkout {number} of {CHECKOUTS} from outside"));
        stage.purchase.buy_at(&stage.outside, &address)?.served()?;
    }
    screen.command(
        LAPTOP,
        &format!("curl http://{address}/checkout?user=ada&item=book   # {CHECKOUTS} times, all served"),
    );
    let url = format!("http://{address}/admin");
    let argv = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", &url];
    let other = stage.outside.exec(&argv)?.stdout;
    claim(other == "404", "/admin to be nobody's", &other)?;
    screen.say("/admin is answered with 404");
    let identity = format!("spiffe://{TRUST_DOMAIN}/ns/ingress/sa/gateway");
    let opened = wait_until("the gateway's connections in a node's metrics", PATIENCE, || {
        let mut opened = 0.0;
        for daemon in stage.both_daemons()? {
            let labels = [("source_principal", identity.as_str()), ("connection_security_policy", "mutual_tls")];
            opened += daemon.metrics()?.sum("istio_tcp_connections_opened_total", &labels);
        }
        Ok((opened > 0.0).then_some(opened))
    })?;
    screen.say(format!("they went on over mTLS as {identity}: {opened} connection(s), kept for the next request"));
    shop.gateway = Some(gateway);
    Ok(format!("{CHECKOUTS} checkouts from outside by the gateway, over mTLS from there; all else 404"))
}
