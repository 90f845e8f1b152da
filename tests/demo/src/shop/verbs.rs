//! An AuthorizationPolicy of the application layer: who may use which method on which path.

use anyhow::Result;
use mesh_lab::{Place, wait_until};

use super::Shop;
use crate::claim::claim;
use crate::screen::Screen;
use crate::stage::PATIENCE;
use crate::table::Table;

const POLICY: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: product, namespace: shop}
spec:
  targetRefs: [{kind: Service, group: \"\", name: product}]
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/frontend]}}]
  - from: [{source: {principals: [cluster.local/ns/shop/sa/shopper]}}]
    to: [{operation: {methods: [GET], paths: [/products]}}]
";

/// A request, and what it gets.
struct Try {
    pod: &'static str,
    method: &'static str,
    target: &'static str,
    expected: &'static str,
}

const TRIES: [Try; 6] = [
    Try { pod: "shopper", method: "GET", target: "/products?item=book", expected: "200" },
    Try { pod: "shopper", method: "DELETE", target: "/products?item=book", expected: "403" },
    Try { pod: "shopper", method: "GET", target: "/healthz", expected: "403" },
    Try { pod: "shopper", method: "GET", target: "/products/..%2fhealthz", expected: "403" },
    Try { pod: "cart-v1", method: "GET", target: "/products?item=book", expected: "403" },
    Try { pod: "frontend-v1", method: "GET", target: "/healthz", expected: "200" },
];

pub(super) fn show(shop: &mut Shop, screen: &Screen) -> Result<String> {
    shop.stage.lab.unapply("virtualservice.product.yaml")?;
    shop.stage.lab.apply("authorizationpolicy.product.yaml", POLICY)?;
    screen.say(
        "AuthorizationPolicy product: frontend may everything, the shopper may GET /products, nobody else anything",
    );
    wait_until("the policy to be in force", PATIENCE, || {
        Ok((status(shop.stage.pod("cart-v1")?, "GET", "/products?item=book")? == "403").then_some(()))
    })?;
    let mut table = Table::new(["who", "asks for", "gets"]);
    let mut refused = 0;
    for Try { pod, method, target, expected } in TRIES {
        let got = status(shop.stage.pod(pod)?, method, target)?;
        claim(got == expected, format!("{pod}: {method} {target} to get {expected}"), &got)?;
        refused += usize::from(got == "403");
        table.row([pod.to_owned(), format!("{method} {target}"), got]);
    }
    screen.table(&table);
    shop.stage.purchase.buy(shop.shopper()?)?;
    screen.say("and a checkout still works");
    Ok(format!("{} requests as the policy has them, {refused} refused with 403", TRIES.len()))
}

fn status(place: &impl Place, method: &str, target: &str) -> Result<String> {
    let url = format!("http://product.shop:8080{target}");
    let argv = [
        "curl",
        "--silent",
        "--path-as-is",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
        "--request",
        method,
        &url,
    ];
    Ok(place.exec(&argv)?.stdout)
}
