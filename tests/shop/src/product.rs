//! Product: `GET /products?item=I` gives a price. Version v2 also says how many are in stock.
//!
//! Every item is sold; its price follows from its name, so that all replicas agree.

use serde_json::json;
use tokio::net::TcpListener;

use crate::about::About;
use crate::exchange::{Exchange, Reply};
use crate::failure::Refusal;
use crate::server::{Handler, serve_http};

struct Product {
    about: About,
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, about: About) {
    let product = Product { about: about.clone() };
    serve_http(listener, about, product).await;
}

impl Handler for Product {
    async fn answer(&self, request: &Exchange) -> Result<Reply, Refusal> {
        match request.path.as_str() {
            "/healthz" => Ok(Reply::text("text/plain", "ok\n")),
            "/products" => {
                let item = request.required("item")?;
                let mut product = json!({
                    "item": item,
                    "price_cents": price_cents(item),
                    "marker": request.headers.marker(),
                    "hops": [self.about.hop(request.ends, &request.headers)],
                });
                if self.about.version == "v2" {
                    product["in_stock"] = json!(price_cents(item) % 97);
                }
                Ok(Reply::ok(&product))
            }
            _ => Err(request.not_found()),
        }
    }
}

/// The price of an item, from 1.00 up.
fn price_cents(item: &str) -> u64 {
    100 + item.bytes().map(u64::from).sum::<u64>()
}
