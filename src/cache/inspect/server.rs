//! Questions about the store's server and the rights of the login, for `rpcache doctor` and surveys. Changes nothing.

use super::{Cache, INSPECT_DEADLINE};
use crate::cache::store::StoreError;
use crate::cache::{MissingRights, ServerFault, ServerStats};
use crate::counts::ConnectionState;
use crate::error::Error;
use crate::procedure_name::ProcedureName;

impl Cache {
    /// What the server reports about itself; `None` if it does not tell this login.
    pub async fn server_stats(&self) -> Result<Option<ServerStats>, Error> {
        self.ask(self.store.server_stats(INSPECT_DEADLINE)).await
    }

    /// The number of all keys in the store; `None`: this login may not ask.
    pub(super) async fn key_count(&self) -> Result<Option<u64>, Error> {
        self.ask(self.store.key_count(INSPECT_DEADLINE)).await
    }

    /// Waits for the first attempt to connect, and says how it ended.
    pub(crate) async fn connected(&self) -> Result<(), Error> {
        self.store.settled().await;
        match self.counts.redis.state() {
            ConnectionState::Up => Ok(()),
            _ => Err(self.error(StoreError::Unavailable)),
        }
    }

    /// The servers that hold the keys, for a person to read; `None`: the one of the address.
    pub(crate) fn servers(&self) -> Option<String> {
        self.store.servers()
    }

    /// The server's version; `None`: it does not say.
    pub(crate) async fn version(&self) -> Result<Option<String>, Error> {
        self.ask(self.store.version(INSPECT_DEADLINE)).await
    }

    /// Which rights this login is missing of those that the procedure's clients and workers need.
    pub(crate) async fn missing_rights(
        &self,
        procedure: &ProcedureName,
    ) -> Result<MissingRights, Error> {
        let namespace = self.options.namespace.as_ref();
        let missing = self
            .store
            .missing_rights(namespace, procedure, INSPECT_DEADLINE);
        self.ask(missing).await
    }

    /// Why a server that is there does not store answers. `None` as well where this login has no rights to
    /// find out.
    pub(crate) async fn server_fault(
        &self,
        procedure: &ProcedureName,
    ) -> Result<Option<ServerFault>, Error> {
        let namespace = self.options.namespace.as_ref();
        let fault = self
            .store
            .server_fault(namespace, procedure, INSPECT_DEADLINE);
        self.ask(fault).await
    }
}
