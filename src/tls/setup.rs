//! TLS configuration: trusted CAs and the client certificate, read once and shared by all connections.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::fault::Side;
use super::{HandshakeError, TlsFault};

/// Certificates for TLS. By default the system's CAs are trusted, and there is no client certificate.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct TlsOptions {
    /// CA certificates in PEM, one or several after each other, in place of the system's. Trusted for both servers.
    pub ca: Option<Vec<u8>>,
    /// The client certificate, sent if the server requests one.
    pub identity: Option<TlsIdentity>,
}

/// A client certificate with its key. The key is never printed.
#[derive(Clone)]
pub struct TlsIdentity {
    /// The certificate in PEM, followed by intermediate certificates, if any.
    pub certificate: Vec<u8>,
    /// Its private key in PEM: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key: Vec<u8>,
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").finish_non_exhaustive()
    }
}

/// Which part of [`TlsOptions`] is invalid, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsOptionsError {
    /// The CA certificates.
    #[error("invalid CA certificates, expected PEM: {0}")]
    Ca(String),
    /// The client certificate.
    #[error("invalid certificate, expected PEM: {0}")]
    Certificate(String),
    /// The private key.
    #[error("invalid private key, expected PEM: {0}")]
    Key(String),
    /// Certificate and key are valid, but do not belong together.
    #[error("the certificate is not for this private key")]
    Mismatch,
}

/// TLS settings for [`crate::AmqpUrl::with_tls`] and [`crate::RedisUrl::with_tls`]. Clones share everything.
///
/// TLS 1.2 and 1.3. The server's certificate is always checked, including the host's name.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut options = rpcache::tls::TlsOptions::default();
/// options.ca = Some(std::fs::read("ca.pem")?);
/// let tls = rpcache::tls::Tls::new(&options)?;
/// let amqp: rpcache::AmqpUrl = "amqps://broker.example".parse()?;
/// let amqp = amqp.with_tls(tls);
/// # Ok(())
/// # }
/// ```
///
/// [`Tls::default`], the default of an address, trusts the system's CAs, which are read at the first connection.
/// Certificates are read once: restart the process to use new ones.
#[derive(Clone, Default)]
pub struct Tls(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// `None`: the system's CAs.
    ca: Option<Arc<RootCertStore>>,
    identity: Option<Arc<SingleCertAndKey>>,
    config: OnceCell<Arc<ClientConfig>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Side {
            own_ca,
            has_certificate,
        } = self.side();
        f.debug_struct("Tls")
            .field("own_ca", &own_ca)
            .field("has_certificate", &has_certificate)
            .finish()
    }
}

impl Tls {
    /// Parses the certificates. Does no I/O.
    pub fn new(options: &TlsOptions) -> Result<Self, TlsOptionsError> {
        let ca = options.ca.as_deref().map(read_ca).transpose()?;
        let identity = options.identity.as_ref().map(read_identity).transpose()?;
        Ok(Self(Arc::new(Inner {
            ca: ca.map(Arc::new),
            identity: identity.map(Arc::new),
            config: OnceCell::new(),
        })))
    }

    pub(crate) fn side(&self) -> Side {
        Side {
            own_ca: self.0.ca.is_some(),
            has_certificate: self.0.identity.is_some(),
        }
    }

    /// Performs the handshake with `host` over `stream`. The caller sets a deadline. Cancel safe: dropping the
    /// future drops the stream.
    pub(crate) async fn handshake(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, HandshakeError> {
        let config = self.config().await.map_err(HandshakeError::Fault)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            HandshakeError::Fault(TlsFault::Handshake(
                "the host in the address is not a name that a certificate can have".to_owned(),
            ))
        })?;
        let connected = TlsConnector::from(config).connect(name, stream).await;
        connected.map_err(|error| match TlsFault::of(&error, self.side()) {
            Some(fault) => HandshakeError::Fault(fault),
            None => HandshakeError::Lost(error),
        })
    }

    async fn config(&self) -> Result<Arc<ClientConfig>, TlsFault> {
        let Inner {
            ca,
            identity,
            config,
        } = &*self.0;
        let config = config.get_or_try_init(async || {
            let roots = match ca {
                Some(ca) => Arc::clone(ca),
                None => system_roots().await?,
            };
            configure(roots, identity.clone()).map(Arc::new)
        });
        config.await.cloned()
    }
}

fn provider() -> Arc<CryptoProvider> {
    // Explicit: independent of the default provider that other code in the process installs.
    Arc::new(ring::default_provider())
}

fn configure(
    roots: Arc<RootCertStore>,
    identity: Option<Arc<SingleCertAndKey>>,
) -> Result<ClientConfig, TlsFault> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsFault::Handshake(error.to_string()))?
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(identity) => config.with_client_cert_resolver(identity),
        None => config.with_no_client_auth(),
    };
    // Enough for two servers of a few nodes each.
    config.resumption = Resumption::in_memory_sessions(8);
    Ok(config)
}

/// The system's CAs, read once per process, and again after a failure.
async fn system_roots() -> Result<Arc<RootCertStore>, TlsFault> {
    static ROOTS: OnceCell<Arc<RootCertStore>> = OnceCell::const_new();
    let roots = ROOTS.get_or_try_init(async || {
        // Blocking: hundreds of files on some systems.
        let read = tokio::task::spawn_blocking(read_system_roots).await;
        read.unwrap_or_else(|_| Err(TlsFault::NoTrust("reading them was cancelled".to_owned())))
    });
    roots.await.cloned()
}

fn read_system_roots() -> Result<Arc<RootCertStore>, TlsFault> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Unparsable certificates are skipped: an outdated one must not disable the others.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reason = found.errors.first().map(ToString::to_string);
        let reason = reason.unwrap_or_else(|| "there are none".to_owned());
        return Err(TlsFault::NoTrust(reason));
    }
    Ok(Arc::new(roots))
}

fn read_ca(pem: &[u8]) -> Result<RootCertStore, TlsOptionsError> {
    let certificates = read_certificates(pem).map_err(TlsOptionsError::Ca)?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let added = roots.add(certificate);
        added.map_err(|error| TlsOptionsError::Ca(error.to_string()))?;
    }
    Ok(roots)
}

fn read_identity(identity: &TlsIdentity) -> Result<SingleCertAndKey, TlsOptionsError> {
    let chain = read_certificates(&identity.certificate).map_err(TlsOptionsError::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&identity.key)
        .map_err(|error| TlsOptionsError::Key(describe(&error)))?;
    let certified = CertifiedKey::from_der(chain, key, &provider());
    certified
        .map(SingleCertAndKey::from)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsOptionsError::Mismatch,
            rustls::Error::InvalidCertificate(error) => {
                TlsOptionsError::Certificate(error.to_string())
            }
            error => TlsOptionsError::Key(error.to_string()),
        })
}

/// Parses certificates in PEM. Fails if there are none.
fn read_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(describe(&pem::Error::NoItemsFound)),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(describe(&error)),
    }
}

/// Describes an error without the text that was parsed, which may be a key.
fn describe(error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => "none found",
        pem::Error::MissingSectionEnd { .. } => "truncated",
        pem::Error::Base64Decode(_) => "not base64",
        pem::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => "not text",
        _ => "malformed",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    /// A certificate in PEM, with its key.
    fn identity() -> TlsIdentity {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        TlsIdentity {
            certificate: certificate.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
        }
    }

    fn showing(identity: TlsIdentity) -> TlsOptions {
        TlsOptions {
            ca: None,
            identity: Some(identity),
        }
    }

    #[test]
    fn keys_are_never_printed() {
        let options = showing(identity());
        let tls = Tls::new(&options).unwrap();
        assert_eq!(
            format!("{options:?} {tls:?}"),
            "TlsOptions { ca: None, identity: Some(TlsIdentity { .. }) } \
             Tls { own_ca: false, has_certificate: true }"
        );
    }

    #[test]
    fn invalid_pem_is_reported_by_its_part() {
        let (one, other) = (identity(), identity());
        let ca = |pem: &[u8]| TlsOptions {
            ca: Some(pem.to_vec()),
            identity: None,
        };
        assert!(Tls::new(&ca(&one.certificate)).is_ok());
        let both = [&one.certificate[..], &other.certificate].concat();
        assert!(Tls::new(&ca(&both)).is_ok());
        for wrong in [&b""[..], b"no PEM", &one.key, &one.certificate[..100]] {
            let error = Tls::new(&ca(wrong)).unwrap_err();
            assert!(matches!(error, TlsOptionsError::Ca(_)), "{error}");
        }
        let with = |certificate: &[u8], key: &[u8]| {
            let (certificate, key) = (certificate.to_vec(), key.to_vec());
            Tls::new(&showing(TlsIdentity { certificate, key })).unwrap_err()
        };
        assert!(matches!(
            with(b"", &one.key),
            TlsOptionsError::Certificate(_)
        ));
        assert!(matches!(
            with(&one.certificate, b""),
            TlsOptionsError::Key(_)
        ));
        assert_eq!(
            with(&one.certificate, &other.key),
            TlsOptionsError::Mismatch
        );
    }
}
