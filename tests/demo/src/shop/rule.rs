//! Rules for product, applied as a user would, and awaited by what they say.

use anyhow::Result;
use mesh_lab::{Place as _, wait_until};

use super::Shop;
use crate::screen::Screen;
use crate::stage::PATIENCE;

/// The file of the VirtualService of product: there is one at a time.
const FILE: &str = "virtualservice.product.yaml";

/// Puts a VirtualService for product in force: `http` is the YAML of its routes, at a depth of two. `name` is in every response
/// that it has had a part in, by which it is seen to be in force.
pub(super) fn apply(shop: &Shop, screen: &Screen, name: &str, http: &str) -> Result<()> {
    let manifest = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: product, namespace: shop}}\n\
         spec:\n  hosts: [product]\n  http:\n{http}    headers: {{response: {{set: {{x-rule: {name}}}}}}}\n"
    );
    screen.say(format!("VirtualService product, {name}:"));
    http.lines().for_each(|line| screen.quote(line));
    shop.stage.lab.apply(FILE, &manifest)?;
    wait_until(&format!("the rule {name} to be in force"), PATIENCE, || {
        let url = "http://product.shop:8080/products?item=book";
        let head = shop.shopper()?.exec(&["curl", "--silent", "--head", "--request", "GET", url])?;
        Ok(head.stdout.contains(&format!("x-rule: {name}")).then_some(()))
    })
}
