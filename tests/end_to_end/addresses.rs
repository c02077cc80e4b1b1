//! Addresses of several nodes, some of which do not answer.

use crate::support::Setup;
use crate::support::ports::{SilentPeer, SwallowingPort};

#[tokio::test]
async fn nodes_that_are_frozen_or_swallow_packets_cost_a_head_start() {
    let setup = Setup::new().await;
    let (frozen, swallowing) = (SilentPeer::start(), SwallowingPort::reserve());
    // They are tried in a random order.
    let nodes = [frozen.port(), swallowing.port(), setup.vhost.port()];
    let nodes = nodes.map(|port| setup.vhost.url_by(port)).join(",");
    let by_all = |arguments: &[&str]| setup.rpcache(arguments).env("AMQP_URL", &nodes);
    let _worker = setup.serving(by_all(&["worker"])).await;
    for n in 30..40 {
        let call = ["call", &n.to_string(), "--no-cache", "--timeout", "3s"];
        let call = by_all(&call).run().await;
        assert_eq!(call.code, Some(0), "{call:#?}");
    }
}
