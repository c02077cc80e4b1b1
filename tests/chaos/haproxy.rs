//! `HAProxy` in front of the nodes of RabbitMQ, as many deployments have it.

use std::process::{Child, Command};

use crate::support::rabbit_cluster::{NODES, RabbitCluster};
use crate::support::{lifetime, ports};

pub(crate) struct Proxy {
    port: u16,
    server: Child,
}

impl Proxy {
    pub(crate) fn start(cluster: &RabbitCluster) -> Result<Self, String> {
        let folder = lifetime::folder("haproxy");
        let [port] = ports::free();
        let servers =
            (0..NODES).map(|n| format!(" server n{n} 127.0.0.1:{} check\n", cluster.port(n)));
        let settings = format!(
            "defaults\n mode tcp\n timeout connect 2s\n timeout client 1h\n timeout server 1h\n\
             listen amqp\n bind 127.0.0.1:{port}\n balance leastconn\n option redispatch\n retries 2\n \
             default-server inter 1s fall 2 rise 2 on-marked-down shutdown-sessions\n{}",
            servers.collect::<String>()
        );
        let file = folder.join("haproxy.cfg");
        std::fs::write(&file, settings).map_err(|error| error.to_string())?;
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&file);
        let server = lifetime::start_server(command, &folder, port)?;
        Ok(Self { port, server })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
