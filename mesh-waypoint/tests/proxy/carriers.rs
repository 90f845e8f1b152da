//! What carries tunnels, from nodes to the waypoint and from the waypoint to nodes.

use mesh_transport::hbone::TunnelStream;

use crate::server::{Client, serve_carts};
use crate::world::{World, run, run_by_hbone};

const SERVICE: &str = "10.96.0.1:80";

/// Whether a tunnel to the waypoint has its connection to itself, and the one that a request in it takes to an endpoint's node.
async fn legs(world: &World) -> (bool, Vec<bool>) {
    let _carts = serve_carts().await;
    let tunnel = world.tunnel(SERVICE).await.expect("tunnel");
    let is_direct = matches!(tunnel, TunnelStream::Direct(_));
    assert_eq!(Client::http1(tunnel).await.get("/").await.status, 200);
    (is_direct, world.direct.take())
}

#[test]
fn tunnels_have_connections_of_their_own_where_nodes_offer_that() {
    run(async |world| assert_eq!(legs(&world).await, (true, vec![true])));
}

#[test]
fn tunnels_share_connections_of_http2_with_nodes_that_speak_hbone_alone() {
    run_by_hbone(async |world| assert_eq!(legs(&world).await, (false, vec![false])));
}
