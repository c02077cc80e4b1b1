//! TLS for the connections to both servers, by rustls: which certificates are believed, which one is
//! shown, and what can be wrong.
//!
//! [`crate::transport`] asks for it where an address says so. There is no way to believe a certificate
//! that has not been checked, and none back to plain text.

mod fault;
#[cfg(feature = "tls")]
mod setup;

pub use self::fault::TlsFault;
#[cfg(feature = "tls")]
pub use self::setup::{Tls, TlsIdentity, TlsOptions, TlsOptionsError};

/// Why a TLS handshake failed.
#[cfg(feature = "tls")]
#[derive(Debug)]
pub(crate) enum HandshakeError {
    /// The connection was lost or timed out.
    Lost(std::io::Error),
    /// TLS is not possible as it is configured.
    Fault(TlsFault),
}

/// Without the feature `tls` there is none, and addresses that ask for it are refused.
#[cfg(not(feature = "tls"))]
#[derive(Debug, Clone)]
pub(crate) enum Tls {}
