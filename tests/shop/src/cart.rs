//! Cart: what each user wants to buy, in memory.
//!
//! `POST /carts?user=U` with `{"item": I}` puts an item in, `GET /carts?user=U` lists.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use http::Method;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;

use crate::about::About;
use crate::exchange::{Exchange, Reply};
use crate::failure::Refusal;
use crate::server::{Handler, serve_http};

/// Items kept of one user; the oldest goes first.
const MOST_ITEMS: usize = 16;
/// Users kept; beyond, all carts are emptied.
const MOST_USERS: usize = 1024;

#[derive(Debug, Deserialize)]
struct Wanted {
    item: String,
    #[serde(default)]
    marker: String,
}

struct Cart {
    about: About,
    carts: Mutex<HashMap<String, VecDeque<String>>>,
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, about: About) {
    let carts = Mutex::new(HashMap::new());
    let cart = Cart { about: about.clone(), carts };
    serve_http(listener, about, cart).await;
}

impl Handler for Cart {
    async fn answer(&self, request: &Exchange) -> Result<Reply, Refusal> {
        let hop = self.about.hop(request.ends, &request.headers);
        match (&request.method, request.path.as_str()) {
            (_, "/healthz") => Ok(Reply::text("text/plain", "ok\n")),
            (&Method::POST, "/carts") => {
                let wanted: Wanted = request.json()?;
                let user = request.required("user")?;
                let items = self.put(user, wanted.item);
                Ok(Reply::ok(&json!({
                    "user": user, "items": items, "marker": wanted.marker, "hops": [hop],
                })))
            }
            (&Method::GET, "/carts") => {
                let user = request.required("user")?;
                let marker = request.headers.marker();
                Ok(Reply::ok(&json!({
                    "user": user, "items": self.items(user), "marker": marker, "hops": [hop],
                })))
            }
            _ => Err(request.not_found()),
        }
    }
}

impl Cart {
    fn put(&self, user: &str, item: String) -> usize {
        let mut carts = self.carts.lock().unwrap_or_else(PoisonError::into_inner);
        if carts.len() >= MOST_USERS && !carts.contains_key(user) {
            carts.clear();
        }
        let items = carts.entry(user.to_owned()).or_default();
        if items.len() >= MOST_ITEMS {
            items.pop_front();
        }
        items.push_back(item);
        items.len()
    }

    fn items(&self, user: &str) -> Vec<String> {
        let carts = self.carts.lock().unwrap_or_else(PoisonError::into_inner);
        carts.get(user).into_iter().flatten().cloned().collect()
    }
}
