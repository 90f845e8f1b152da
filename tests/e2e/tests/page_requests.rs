//! `mesh-ctl dashboard` about requests: durations, shares wanted and seen, circuits, and why a request is refused.

use anyhow::Result;
use mesh_e2e::{Browser, Mesh, NODES, Page, STORE, Shop, Store, Verdict, edge, picture, shows};

/// A Service's host, where nobody answered for it.
const ITEM: &str = "item.store.svc.cluster.local";

#[test]
fn requests_are_shown_with_durations_shares_circuits_and_the_reason_of_each_refusal() -> Verdict {
    let mesh = Mesh::start()?;
    let _shop = Shop::open(&mesh)?;
    let store = Store::open(&mesh)?;
    let proxies = [(STORE, &store.waypoint), ("edge", &store.gateway)];
    let page = Page::serve(
        &NODES.map(|node| mesh.lab.admin_socket(node)),
        &proxies.map(|(namespace, pod)| mesh.lab.waypoint_socket(namespace, pod.name())),
    )?;
    let mut browser = Browser::start(1280, 800)?;
    browser.open(page.url())?;
    browser.wait("the page to be live", "document.getElementById('state')?.textContent === 'live'")?;
    edges_of_requests(&mut browser)?;
    why_a_request_is_refused(&mut browser)?;
    shares_and_circuits(&mut browser)?;
    proxies_of_the_mesh(&mut browser)?;
    Ok(())
}

/// Whoever sees requests tells of them: a node, a waypoint, a gateway. A waypoint's connections stand behind its requests.
fn edges_of_requests(browser: &mut Browser) -> Result<()> {
    for (from, to, way) in [
        ("store/buyer", "store/item-v1", "waypoint"),
        ("store/buyer", "store/item-v2", "waypoint"),
        ("shop/order-v1", "shop/payment-v1", "hbone"),
        ("edge/gateway-1", "shop/frontend-v1", "hbone"),
    ] {
        shows(browser, from, to, way)?;
        let of = format!("{}.textContent", edge(from, to, way));
        browser.wait("its durations", &format!("/ req\\/s, p50 [0-9.]+, p99 [0-9.]+ ms/.test({of})"))?;
    }
    let customer = "[...document.querySelectorAll('#edges button')].some((it) => \
                    it.dataset.to === 'edge/gateway-1' && it.textContent.includes('req/s'))";
    browser.wait("the customer outside at the gateway", customer)?;
    // The node may tell of the connection before the waypoint tells who it is.
    let leg = format!("{} !== null", edge("store/buyer", "store/waypoint-1", "hbone"));
    browser.wait("the waypoint's connections to stand behind its requests", &format!("!({leg})"))?;
    browser.eval("document.getElementById('legs').click()")?;
    browser.wait("the legs when they are asked for", &leg)?;
    browser.eval("document.getElementById('legs').click()")?;
    browser.wait("no legs any more", &format!("!({leg})"))
}

/// What the waypoint answers itself is an edge to the Service, and each error of it can be asked about.
fn why_a_request_is_refused(browser: &mut Browser) -> Result<()> {
    shows(browser, "store/buyer", ITEM, "denied")?;
    let denied = edge("store/buyer", ITEM, "denied");
    browser
        .wait("the policy", &format!("{denied}.textContent.includes('denied by AuthorizationPolicy store/private')"))?;
    browser.eval(&format!("{denied}.click()"))?;
    // Five errors are kept, of five kinds that come by turns.
    let trouble = |of: &str| {
        format!("[...document.querySelectorAll('#details .troubles li')].find((it) => it.textContent.includes('{of}'))")
    };
    let why = "document.querySelector('#details [data-answer=Why]').innerText";
    for (path, reason) in [("GET /private 403 RBAC", "store/private"), ("GET /broken 503 FI", "fault")] {
        browser.wait(path, &format!("{} !== undefined", trouble(path)))?;
        // The list is another a moment later.
        browser.wait(
            "its button",
            &format!(
                "(() => {{ const it = {}; it?.querySelector('button').click(); return it !== undefined }})()",
                trouble(path)
            ),
        )?;
        let asked = path.split(' ').nth(1).unwrap_or_default();
        browser.wait(
            "why",
            &format!("{why}.includes('{ITEM}:80{asked}') && {why}.includes('{reason}') && {why}.includes('waypoint')"),
        )?;
    }
    picture(browser, "dashboard-request")?;
    browser.press("Escape")?;
    browser.wait("the details to close", "document.getElementById('details').hidden")
}

fn shares_and_circuits(browser: &mut Browser) -> Result<()> {
    browser.eval(&format!("{}.click()", edge("store/buyer", "store/item-v1", "waypoint")))?;
    let details = "document.getElementById('details').innerText";
    for part in ["Shares wanted and seen", "VirtualService store/item rule canary", "75.0%", "25.0%", "by a waypoint"] {
        browser.wait(part, &format!("{details}.includes('{part}')"))?;
    }
    browser.press("Escape")?;
    let out = format!("{}.textContent.includes('(1 ejected)')", edge("store/buyer", "store/flaky-v1", "waypoint"));
    browser.wait("what is left out of a Service, at its edges", &out)?;
    browser.eval("document.getElementById('tab-services').click()")?;
    let row = |service: &str| format!("(document.querySelector('[data-service=\"{service}\"]')?.innerText ?? '')");
    browser
        .wait("rates of a Service that nodes see", &format!("/payment.shop\\s+[1-9]/.test({})", row("payment.shop")))?;
    browser.wait("an open circuit", &format!("{}.includes('1 ejected')", row("flaky.store")))?;
    let card = |service: &str| format!("(document.querySelector('[data-of=\"{service}\"]')?.innerText ?? '')");
    let ejected =
        format!("{}.includes('store/flaky-v2 is ejected: too many 5xx in a row; back in')", card("flaky.store"));
    browser.wait("who is ejected and why", &ejected)?;
    // By chance alone, a quarter of some hundred requests.
    let seen =
        "parseFloat(document.querySelector('[data-of=\"item.store\"] tr[data-to$=v1] td:nth-child(3)').innerText)";
    browser.wait("the share that was seen", &format!("{seen} > 40 && {seen} < 100"))?;
    picture(browser, "dashboard-services")?;
    browser.resize(390, 800)?;
    browser.wait("nothing wider than a phone", "document.documentElement.scrollWidth <= 390")?;
    browser.resize(1280, 800)
}

fn proxies_of_the_mesh(browser: &mut Browser) -> Result<()> {
    browser.eval("document.getElementById('tab-nodes').click()")?;
    for (gateway, kind) in [("store/waypoint", "Waypoint"), ("edge/gateway", "Gateway")] {
        let card = format!("(document.querySelector('[data-proxy=\"{gateway}\"]')?.innerText ?? '')");
        for part in [&format!("{kind} {gateway}"), "Generation", "spiffe://cluster.local/ns/", "ends in"] {
            browser.wait(part, &format!("{card}.includes('{part}')"))?;
        }
    }
    Ok(())
}
