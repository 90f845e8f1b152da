//! An endpoint's node that goes without a word.

use crate::server::{Client, serve};
use crate::world::{CARTS, ip, run};

/// One endpoint.
const POD: &str = "10.1.0.11:9595";

/// What TCP by itself would find after a quarter of an hour.
#[test]
fn a_request_to_a_node_that_has_vanished_ends() {
    run(async |world| {
        let backend = serve(CARTS[0], 9595, false).await;
        let mut client = Client::http1(world.tunnel(POD).await.expect("tunnel")).await;
        assert_eq!(client.get("/").await.status, 200);
        // From here on nothing comes to it, by the connection that is kept either, and nothing says so.
        ip(&["address", "del", &format!("{}/32", CARTS[0]), "dev", "lo"]);
        assert_eq!(client.get("/").await.status, 503);
        assert_eq!(backend.seen.borrow().len(), 1);
    });
}
