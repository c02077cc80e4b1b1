//! TLS with rustls for connections to both servers: trusted CAs, the client certificate, and faults.
//!
//! [`crate::transport`] uses it where an address asks for TLS. Certificates are always checked, and there is no
//! fallback to plain text.

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
    /// The connection was lost.
    Lost(std::io::Error),
    /// TLS is not possible as it is configured.
    Fault(TlsFault),
}

/// Uninhabited without the feature `tls`: addresses that ask for TLS are refused.
#[cfg(not(feature = "tls"))]
#[derive(Debug, Clone)]
pub(crate) enum Tls {}
