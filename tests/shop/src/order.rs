//! Order: `POST /orders` charges by gRPC, then queues a notification over TCP.

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;

use crate::about::About;
use crate::charge::Payments;
use crate::exchange::{Exchange, Reply};
use crate::failure::Refusal;
use crate::notify::Notifications;
use crate::payment::ChargeRequest;
use crate::peers::Peers;
use crate::server::{Handler, serve_http};

/// An order to be placed, known by its id: placed twice, it is still one order.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: String,
    pub(crate) user: String,
    pub(crate) item: String,
    pub(crate) total_cents: u64,
    pub(crate) card: String,
    pub(crate) marker: String,
}

struct Orders {
    about: About,
    payments: Payments,
    notifications: Notifications,
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, about: About, peers: Peers) {
    let age = peers.connection_max_age;
    let orders = Orders {
        about: about.clone(),
        payments: Payments::new(peers.payment, age),
        notifications: Notifications::new(peers.notification, age),
    };
    serve_http(listener, about, orders).await;
}

impl Handler for Orders {
    async fn answer(&self, request: &Exchange) -> Result<Reply, Refusal> {
        match (&request.method, request.path.as_str()) {
            (_, "/healthz") => Ok(Reply::text("text/plain", "ok\n")),
            (&Method::POST, "/orders") => self.place(request).await,
            _ => Err(request.not_found()),
        }
    }
}

impl Orders {
    async fn place(&self, request: &Exchange) -> Result<Reply, Refusal> {
        let order: Order = request.json()?;
        let charge = ChargeRequest {
            order_id: order.id.clone(),
            amount_cents: order.total_cents,
            card_number: order.card,
            marker: order.marker.clone(),
        };
        let charged = self.payments.charge(charge, &request.headers).await?;
        let text = format!("{} bought {} marker={}", order.user, order.item, order.marker);
        let queued = self.notifications.notify(&order.id, &text).await?;
        let own = json!(self.about.hop(request.ends, &request.headers));
        let placed = json!({
            "order": order.id,
            "receipt": charged.receipt,
            "queued": queued.number,
            "marker": order.marker,
            "hops": [own, charged.hop, queued.hop],
        });
        Ok(Reply::json(StatusCode::CREATED, &placed))
    }
}
