//! The whole shop on loopback, as processes that find each other by their environment.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

const SHOP: &str = env!("CARGO_BIN_EXE_mesh-shop");
const ANY: &str = "127.0.0.1:0";

/// A running service; killed and reaped when dropped.
struct Service {
    child: Child,
    address: SocketAddr,
    stdout: BufReader<ChildStdout>,
}

impl Service {
    fn start(service: &str, version: &str, listen: &str, environment: &[(&str, String)]) -> Self {
        let mut child = Command::new(SHOP)
            .args([service, "--listen", listen, "--version", version])
            .env("NODE_NAME", format!("node-of-{service}"))
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening ").unwrap().trim().parse();
        Self { child, address: address.unwrap(), stdout }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends the service and gives all that it logged.
    fn stop(mut self) -> String {
        self.child.kill().unwrap();
        let mut logged = String::new();
        self.stdout.read_to_string(&mut logged).unwrap();
        logged
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Shop {
    cart: Service,
    product: Service,
    payment: Service,
    notification: Service,
    order: Service,
    frontend: Service,
}

impl Shop {
    fn open(product_version: &str, listen: &str, max_age_ms: u64) -> Self {
        let leaf = |service| Service::start(service, "v1", listen, &[]);
        let cart = leaf("cart");
        let product = Service::start("product", product_version, listen, &[]);
        let payment = leaf("payment");
        let notification = leaf("notification");
        let age = ("CONNECTION_MAX_AGE_MS", max_age_ms.to_string());
        let environment = [
            ("PAYMENT_ADDR", payment.url()),
            ("NOTIFICATION_ADDR", format!("tcp://{}", notification.address)),
            age.clone(),
        ];
        let order = Service::start("order", "v1", listen, &environment);
        let environment =
            [("CART_ADDR", cart.url()), ("PRODUCT_ADDR", product.url()), ("ORDER_ADDR", order.url()), age];
        let frontend = Service::start("frontend", "v1", listen, &environment);
        Self { cart, product, payment, notification, order, frontend }
    }

    /// Checks out by the client; its exit code and its last line.
    fn check_out(&self, more: &[&str]) -> (bool, Value) {
        let output =
            Command::new(SHOP).args(["checkout", "--frontend", &self.frontend.url()]).args(more).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let last = text.lines().last().expect("the client prints a line");
        (output.status.success(), serde_json::from_str(last).unwrap())
    }

    fn assert_open(&self) {
        let (ok, answer) = self.check_out(&[]);
        assert!(ok, "{answer:#}");
    }
}

fn hop<'a>(answer: &'a Value, service: &str) -> &'a Value {
    let hops = answer["hops"].as_array().unwrap();
    let found = hops.iter().find(|hop| hop["service"] == service);
    found.unwrap_or_else(|| panic!("no {service} in {answer:#}"))
}

fn assert_whole(shop: &Shop, host: &str) {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let header = format!("traceparent: {trace}");
    let (ok, answer) = shop.check_out(&["--marker", "marker-7", "--header", &header]);
    assert!(ok, "{answer:#}");
    assert_eq!(answer["marker"], "marker-7");
    assert_eq!(answer["hops"].as_array().unwrap().len(), 6);
    for (service, running) in [
        ("frontend", &shop.frontend),
        ("cart", &shop.cart),
        ("product", &shop.product),
        ("order", &shop.order),
        ("payment", &shop.payment),
        ("notification", &shop.notification),
    ] {
        let hop = hop(&answer, service);
        assert_eq!(hop["node"], format!("node-of-{service}"));
        assert_eq!(hop["local"], running.address.to_string());
        let peer: SocketAddr = hop["peer"].as_str().unwrap().parse().unwrap();
        assert_eq!(peer.ip().to_string(), host);
        if service != "notification" {
            assert_eq!(hop["traceparent"], trace, "{service}");
        }
    }
    let order = answer["order"].as_str().unwrap();
    let receipt = format!("r-{order}-{}", answer["total_cents"]);
    assert_eq!(answer["receipt"], receipt);
}

#[test]
fn a_checkout_names_every_program_that_took_part() {
    let shop = Shop::open("v1", ANY, 30_000);
    assert_whole(&shop, "127.0.0.1");
    let (_, again) = shop.check_out(&[]);
    assert_eq!(again["queued"], 2);
}

#[test]
fn a_checkout_goes_over_ipv6() {
    assert_whole(&Shop::open("v1", "[::1]:0", 30_000), "::1");
}

#[test]
fn a_mapped_peer_is_shown_as_ipv4() {
    let cart = Service::start("cart", "v1", "[::]:0", &[]);
    let port = cart.address.port();
    let answer = get(SocketAddr::from(([127, 0, 0, 1], port)), "/carts?user=ada");
    assert!(answer.contains("\"peer\":\"127.0.0.1:"), "{answer}");
    assert!(answer.contains(&format!("\"local\":\"127.0.0.1:{port}\"")), "{answer}");
}

#[test]
fn product_v2_has_a_field_more() {
    let (_, old) = Shop::open("v1", ANY, 0).check_out(&[]);
    let (_, new) = Shop::open("v2", ANY, 0).check_out(&[]);
    assert_eq!(hop(&old, "product")["version"], "v1");
    assert_eq!(hop(&new, "product")["version"], "v2");
    assert!(old["in_stock"].is_null() && new["in_stock"].is_u64());
}

#[test]
fn each_failing_hop_is_named() {
    for down in ["payment", "notification", "order", "product", "cart"] {
        let mut shop = Shop::open("v1", ANY, 0);
        let (service, reporter) = match down {
            "payment" => (&mut shop.payment, "order"),
            "notification" => (&mut shop.notification, "order"),
            "order" => (&mut shop.order, "frontend"),
            "product" => (&mut shop.product, "frontend"),
            _ => (&mut shop.cart, "frontend"),
        };
        service.child.kill().unwrap();
        service.child.wait().unwrap();
        let address = service.address.to_string();
        let answer = get(shop.frontend.address, "/checkout?user=ada&item=book");
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        let (ok, failure) = shop.check_out(&[]);
        assert!(!ok);
        assert_eq!(failure["failed"], down);
        assert_eq!(failure["reported_by"], reporter);
        let reason = failure["reason"].as_str().unwrap();
        assert!(reason.contains(&address) && reason.contains("refused"), "{reason}");
    }
}

#[test]
fn a_restarted_upstream_is_found_again_on_kept_connections() {
    let mut shop = Shop::open("v1", ANY, 3_600_000);
    shop.assert_open();
    let restarted =
        [("payment", &mut shop.payment), ("notification", &mut shop.notification), ("cart", &mut shop.cart)];
    for (name, service) in restarted {
        let listen = service.address.to_string();
        service.child.kill().unwrap();
        service.child.wait().unwrap();
        *service = Service::start(name, "v1", &listen, &[]);
    }
    shop.assert_open();
}

#[test]
fn a_kept_connection_that_is_reset_is_replaced_within_the_request() {
    let cart = resetting("HTTP/1.1 200 OK\r\ncontent-length: 22\r\n\r\n{\"items\":[],\"hops\":[]}");
    let notification = resetting("QUEUED 1 {}\n");
    let leaf = |service| Service::start(service, "v1", ANY, &[]);
    let (product, payment) = (leaf("product"), leaf("payment"));
    let environment = [("PAYMENT_ADDR", payment.url()), ("NOTIFICATION_ADDR", notification.to_string())];
    let order = Service::start("order", "v1", ANY, &environment);
    let environment = [("CART_ADDR", cart.to_string()), ("PRODUCT_ADDR", product.url()), ("ORDER_ADDR", order.url())];
    let frontend = Service::start("frontend", "v1", ANY, &environment);
    for _ in 0..3 {
        let answer = get(frontend.address, "/checkout?user=ada&item=book");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

/// A server that gives `answer` to the first request of each connection and resets it at the second.
fn resetting(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(ANY).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut request = Vec::new();
                let whole = |request: &[u8]| match request.first() {
                    Some(b'P') => request.ends_with(b"}"),
                    Some(b'G') => request.ends_with(b"\r\n\r\n"),
                    _ => request.ends_with(b"\n"),
                };
                while !whole(&request) {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    request.push(byte[0]);
                }
                stream.write_all(answer.as_bytes()).unwrap();
                // A close with a request unread is a reset.
                let _ = stream.peek(&mut [0]);
            });
        }
    });
    address
}

#[test]
fn connections_are_kept_or_not_as_configured() {
    for (max_age, kept) in [(3_600_000, true), (0, false)] {
        let shop = Shop::open("v1", ANY, max_age);
        let (_, first) = shop.check_out(&[]);
        let (_, second) = shop.check_out(&[]);
        for service in ["cart", "product", "order", "payment", "notification"] {
            let same = hop(&first, service)["peer"] == hop(&second, service)["peer"];
            assert_eq!(same, kept, "{service} with {max_age} ms");
        }
    }
}

#[test]
fn payment_logs_the_marker_and_never_the_card() {
    let shop = Shop::open("v1", ANY, 30_000);
    let (ok, _) = shop.check_out(&["--marker", "marker-8", "--card", "5555-4444"]);
    assert!(ok);
    let logged = shop.payment.stop();
    let line: Value = serde_json::from_str(logged.lines().next().unwrap()).unwrap();
    assert_eq!(line["marker"], "marker-8");
    assert!(!logged.contains("5555-4444"));
}

#[test]
fn a_request_that_lacks_its_parameters_is_refused() {
    let frontend = Service::start("frontend", "v1", ANY, &[]);
    let answer = get(frontend.address, "/checkout?user=ada");
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("item"), "{answer}");
    assert!(get(frontend.address, "/nothing").starts_with("HTTP/1.1 404 "));
    assert!(get(frontend.address, "/healthz").ends_with("ok\n"));
    assert!(get(frontend.address, "/").contains("<form action=/checkout>"));
}

#[test]
fn notification_refuses_what_it_does_not_understand_and_goes_on() {
    let notification = Service::start("notification", "v1", ANY, &[]);
    let mut stream = dial(notification.address);
    stream.write_all(b"HELO\nNOTIFY o-1 text\n").unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("ERROR "));
    assert!(lines.next().unwrap().unwrap().starts_with("QUEUED 1 {"));
    stream.write_all(&[b'x'; 4096]).unwrap();
    assert!(lines.next().unwrap().unwrap().starts_with("ERROR "));
    assert!(lines.next().is_none());
}

fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// A whole HTTP answer, head and body.
fn get(address: SocketAddr, target: &str) -> String {
    let mut stream = dial(address);
    write!(stream, "GET {target} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
