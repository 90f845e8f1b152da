//! The way out: a host outside that the shop knows by its name alone, where no DNS server is.

use anyhow::{Context as _, Result};
use mesh_lab::{Place, wait_until};

use super::Shop;
use crate::claim::claim;
use crate::screen::Screen;
use crate::stage::{LAPTOP, PATIENCE, SHOPPER};

const HOST: &str = "rates.example.com";
const URL: &str = "http://rates.example.com/today";

/// A host without an address, and who may do what there.
const MANIFESTS: &str = "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: rates, namespace: shop}
spec:
  hosts: [rates.example.com]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8090}]
  endpoints: [{address: ADDRESS}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: rates, namespace: shop}
spec:
  targetRefs: [{kind: ServiceEntry, group: networking.istio.io, name: rates}]
  rules: [{to: [{operation: {methods: [GET]}}]}]
";

pub(super) fn show(shop: &mut Shop, screen: &Screen) -> Result<String> {
    let stage = &shop.stage;
    let mut server = stage.outside.spawn(&["mesh-traffic", "http", "--listen", "[::]:8090", "--name", "rates"])?;
    server.wait_for_line("listening", PATIENCE)?;
    let shopper = shop.shopper()?;
    // A machine that answers no question: whatever is answered is so by the mesh.
    shopper.set_resolver(stage.outside.ipv4())?;
    stage.lab.apply("serviceentry.rates.yaml", &MANIFESTS.replace("ADDRESS", &stage.outside.ipv4().to_string()))?;
    screen.say(format!(
        "ServiceEntry rates: {HOST} is the {LAPTOP}, to GET alone; it has no address, and no DNS server is here"
    ));
    let found = wait_until("the host to be found by its name", PATIENCE, || {
        let found = shopper.exec(&["getent", "ahostsv4", HOST])?.stdout;
        Ok(found.split_whitespace().next().map(str::to_owned))
    })?;
    screen.command(SHOPPER, &format!("getent ahostsv4 {HOST}   # {found}, by the kernel at the pod's interface"));
    let ask = |method: &str| -> Result<(String, String)> {
        let form = "%{remote_ip} %{http_code}";
        let argv = ["curl", "--silent", "--output", "/dev/null", "--write-out", form, "--request", method, URL];
        let said = shopper.exec(&argv)?.stdout;
        let (address, status) = said.split_once(' ').with_context(|| format!("curl said {said:?}"))?;
        Ok((address.to_owned(), status.to_owned()))
    };
    let refused = wait_until("the policy to be in force", PATIENCE, || {
        let (_, status) = ask("POST")?;
        Ok((status == "403").then_some(status))
    })?;
    let (address, status) = ask("GET")?;
    claim(
        status == "200" && address == found,
        format!("{HOST} to answer at {found}"),
        format!("{status} at {address}"),
    )?;
    screen.command(SHOPPER, &format!("curl {URL}   # {status}; with --request POST {refused}"));
    Ok(format!("{HOST} led to the waypoint by its name alone: GET {status}, POST {refused}"))
}
