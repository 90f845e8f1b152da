//! A checkout by curl, and what the shop answered.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use mesh_lab::Place;
use mesh_shop::Hop;
use serde_json::Value;

use crate::claim::unmet;
use crate::stage::Stage;

/// Where pods find the shop.
const FRONTEND: &str = "frontend.shop:8080";
/// After so many seconds curl gives up.
const LIMIT: &str = "10";

/// What is bought, and the words by which it can be found on a wire.
#[derive(Clone, Debug)]
pub struct Purchase {
    /// The number of the card that is charged.
    pub card: String,
    /// A word that every message of the purchase carries.
    pub marker: String,
}

impl Purchase {
    /// A card and a marker that no other run has.
    pub fn new() -> Result<Self> {
        let path = "/proc/sys/kernel/random/uuid";
        let uuid = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
        let hex: String = uuid.chars().filter(char::is_ascii_hexdigit).collect();
        let digits: String = hex.bytes().map(|digit| char::from(b'0' + digit % 10)).collect();
        let (card, marker) = (&digits[..12], &hex[12..24]);
        Ok(Self { card: format!("4000-{}-{}-{}", &card[..4], &card[4..8], &card[8..]), marker: marker.to_owned() })
    }

    /// The request's target at a frontend.
    pub fn url(&self, frontend: &str) -> String {
        format!("http://{frontend}/checkout?user=ada&item=book&card={}&marker={}", self.card, self.marker)
    }

    /// The request's target at the shop's name in the cluster.
    pub fn cluster_url(&self) -> String {
        self.url(FRONTEND)
    }

    /// Buys from a place. How it went, whatever it was, is the result.
    pub fn buy_at(&self, place: &impl Place, frontend: &str) -> Result<Outcome> {
        let url = self.url(frontend);
        let argv = ["curl", "--silent", "--show-error", "--max-time", LIMIT, "--write-out", "\n%{http_code}", &url];
        let output = place.exec(&argv)?;
        let (body, status) = output.stdout.rsplit_once('\n').unwrap_or_default();
        match output.code {
            Some(0) if status == "200" => Ok(Outcome::Served(Answer::read(body)?)),
            Some(0) => Ok(Outcome::Failed(format!("HTTP {status}: {}", body.trim()))),
            _ => Ok(Outcome::Failed(output.stderr.trim().to_owned())),
        }
    }

    /// Buys from a place, at the shop's name in the cluster; it has to be served.
    pub fn buy(&self, place: &impl Place) -> Result<Answer> {
        self.buy_at(place, FRONTEND)?.served()
    }
}

/// How a checkout ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The shop answered with 200.
    Served(Answer),
    /// It did not, or nobody answered: what curl said.
    Failed(String),
}

impl Outcome {
    /// The answer, which has to be there.
    pub fn served(self) -> Result<Answer> {
        match self {
            Self::Served(answer) => Ok(answer),
            Self::Failed(why) => Err(unmet("a checkout that is served", why)),
        }
    }
}

/// What the shop answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The order's number.
    pub order: String,
    /// What was charged.
    pub total_cents: u64,
    /// The programs that took part.
    pub hops: Vec<Hop>,
}

impl Answer {
    fn read(body: &str) -> Result<Self> {
        let json: Value =
            serde_json::from_str(body).with_context(|| format!("the shop's answer is no JSON: {body}"))?;
        let hops = serde_json::from_value(json["hops"].clone()).context("the shop's answer names no hops")?;
        let order = json["order"].as_str().context("the shop's answer names no order")?;
        Ok(Self { order: order.to_owned(), total_cents: json["total_cents"].as_u64().unwrap_or(0), hops })
    }

    /// `order o-1, 12.50, by frontend v1, cart v1, ...`
    pub fn summary(&self) -> String {
        let by: Vec<_> = self.hops.iter().map(|hop| format!("{} {}", hop.service, hop.version)).collect();
        format!(
            "200: order {}, {}.{:02}, by {}",
            self.order,
            self.total_cents / 100,
            self.total_cents % 100,
            by.join(", ")
        )
    }
}

/// One program's view of who called it.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The program's pod, for example `cart-v1`.
    pub server: String,
    /// Its node.
    pub node: String,
    /// The address that its `accept()` returned.
    pub seen: SocketAddr,
    /// Whose address that is.
    pub name: String,
    /// Which program called it, as the shop is built.
    pub expected: &'static str,
}

/// Who called whom in a checkout, each server's own word for its client.
pub fn callers(stage: &Stage, answer: &Answer) -> Result<Vec<Caller>> {
    let caller = |hop: &Hop| {
        let seen: SocketAddr = hop.peer.parse().with_context(|| format!("{} is no address", hop.peer))?;
        let (server, node) = (format!("{}-{}", hop.service, hop.version), hop.node.clone());
        Ok(Caller { server, node, seen, name: stage.name_of(seen.ip()), expected: client_of(&hop.service) })
    };
    answer.hops.iter().map(caller).collect()
}

/// How the shop is built: the pod that calls a service.
pub fn client_of(service: &str) -> &'static str {
    match service {
        "frontend" => crate::stage::SHOPPER,
        "payment" | "notification" => "order-v1",
        _ => "frontend-v1",
    }
}
