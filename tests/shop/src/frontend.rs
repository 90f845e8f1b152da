//! Frontend: what people see. `GET /checkout?user=U&item=I` goes through the whole shop.

use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::about::About;
use crate::exchange::{Exchange, Reply};
use crate::failure::{Failure, Refusal};
use crate::order::Order;
use crate::peers::Peers;
use crate::server::{Handler, serve_http};
use crate::tracing_headers::TracingHeaders;
use crate::upstream::{BRANCH_TIMEOUT, Call, LEAF_TIMEOUT, Upstream};

/// The card that is charged where the request names none: a well-known test number.
pub const DEFAULT_CARD: &str = "4111-1111-1111-1111";

const PAGE: &str = "<!doctype html><title>The shop</title><h1>The shop</h1>\
<form action=/checkout><input name=user value=ada> <input name=item value=book> <button>Buy</button></form>\
<p>The answer names every program that took part, and the peer that each one saw.</p>\n";

struct Frontend {
    about: About,
    cart: Upstream,
    product: Upstream,
    order: Upstream,
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, about: About, peers: Peers) {
    let age = peers.connection_max_age;
    let upstream = |service, address, limit| Upstream::new("frontend", service, address, limit, age);
    let frontend = Frontend {
        about: about.clone(),
        cart: upstream("cart", peers.cart, LEAF_TIMEOUT),
        product: upstream("product", peers.product, LEAF_TIMEOUT),
        order: upstream("order", peers.order, BRANCH_TIMEOUT),
    };
    serve_http(listener, about, frontend).await;
}

impl Handler for Frontend {
    async fn answer(&self, request: &Exchange) -> Result<Reply, Refusal> {
        match (&request.method, request.path.as_str()) {
            (_, "/healthz") => Ok(Reply::text("text/plain", "ok\n")),
            (_, "/") => Ok(Reply::text("text/html; charset=utf-8", PAGE)),
            (&Method::GET | &Method::POST, "/checkout") => self.checkout(request).await,
            _ => Err(request.not_found()),
        }
    }
}

impl Frontend {
    async fn checkout(&self, request: &Exchange) -> Result<Reply, Refusal> {
        let user = request.required("user")?;
        let item = request.required("item")?;
        let card = request.parameter("card").unwrap_or(DEFAULT_CARD);
        let marker = match request.parameter("marker") {
            Some(marker) => marker,
            None => request.headers.marker(),
        };
        let headers = request.headers.clone().with_marker(marker);

        let mut hops = vec![json!(self.about.hop(request.ends, &headers))];
        let cart = self.cart(user, item, &headers).await?;
        let product = self.product(item, &headers).await?;
        let total_cents = product["price_cents"].as_u64();
        let order = Order {
            id: order_id(user, item, marker),
            user: user.to_owned(),
            item: item.to_owned(),
            total_cents: total_cents.ok_or_else(|| self.product.failure("it gave no price".into()))?,
            card: card.to_owned(),
            marker: marker.to_owned(),
        };
        let placed = self.place(&order, &headers).await?;
        for part in [&cart, &product, &placed] {
            hops.extend(part["hops"].as_array().into_iter().flatten().cloned());
        }
        Ok(Reply::ok(&json!({
            "order": order.id,
            "user": user,
            "item": item,
            "marker": marker,
            "in_cart": cart["items"].as_array().map(Vec::len),
            "total_cents": order.total_cents,
            "in_stock": product["in_stock"],
            "receipt": placed["receipt"],
            "queued": placed["queued"],
            "hops": hops,
        })))
    }

    async fn cart(&self, user: &str, item: &str, headers: &TracingHeaders) -> Result<Value, Failure> {
        let target = target("/carts", &[("user", user)]);
        let wanted = json!({ "item": item, "marker": headers.marker() });
        let put = Call::post(&target, headers, &wanted);
        self.cart.json(&put.map_err(|e| self.cart.failure(e.to_string()))?).await?;
        self.cart.json(&Call::get(&target, headers)).await
    }

    async fn product(&self, item: &str, headers: &TracingHeaders) -> Result<Value, Failure> {
        let target = target("/products", &[("item", item), ("marker", headers.marker())]);
        self.product.json(&Call::get(&target, headers)).await
    }

    async fn place(&self, order: &Order, headers: &TracingHeaders) -> Result<Value, Failure> {
        let call = Call::post("/orders", headers, order);
        self.order.json(&call.map_err(|e| self.order.failure(e.to_string()))?).await
    }
}

fn target(path: &str, query: &[(&str, &str)]) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    format!("{path}?{query}")
}

/// The same checkout has the same order, so that a repeated request changes nothing.
fn order_id(user: &str, item: &str, marker: &str) -> String {
    // FNV-1a, 64 bits.
    let parts = [user, "\0", item, "\0", marker];
    let hash = parts
        .iter()
        .flat_map(|part| part.bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("o-{hash:016x}")
}
