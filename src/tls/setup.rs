//! Which certificates are believed and which one is shown, read once and shared by all connections.

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

/// What TLS needs that the address does not say; by default nothing: the system's CAs are trusted, and
/// this side shows no certificate.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct TlsOptions {
    /// CA certificates in PEM, one or several, in place of the system's. They hold for all servers: two
    /// CAs stand in it one after the other.
    pub ca: Option<Vec<u8>>,
    /// What this side shows to servers that want a certificate.
    pub identity: Option<TlsIdentity>,
}

/// A certificate of this side, with its key. The key is never printed.
#[derive(Clone)]
pub struct TlsIdentity {
    /// The certificate in PEM, followed by those between it and the CA, if there are any.
    pub certificate: Vec<u8>,
    /// Its private key in PEM: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key: Vec<u8>,
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").finish_non_exhaustive()
    }
}

/// Which part of [`TlsOptions`] cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsOptionsError {
    /// The CAs.
    #[error("no CA certificates in PEM: {0}")]
    Ca(String),
    /// The certificate of this side.
    #[error("no certificate in PEM: {0}")]
    Certificate(String),
    /// Its key.
    #[error("no private key in PEM: {0}")]
    Key(String),
    /// Both can be read; the certificate is for another key.
    #[error("the certificate is not for this private key")]
    Mismatch,
}

/// How to speak TLS, for [`crate::AmqpUrl::with_tls`] and [`crate::RedisUrl::with_tls`]; clones share
/// everything. TLS 1.2 and 1.3; the server's certificate is always checked, against its host's name, too.
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
/// [`Tls::default`], which an address has by itself, trusts the system's CAs, which are read when they are needed first. What was read is
/// kept: a process must be started again to learn of other certificates.
#[derive(Clone, Default)]
pub struct Tls(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// `None`: the system's.
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
    /// Reads the certificates. Connects to nobody.
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

    /// Speaks TLS with `host` over `stream`. A deadline is the caller's. Cancel safe: the stream is lost
    /// then.
    pub(crate) async fn handshake(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, HandshakeError> {
        let config = self.config().await.map_err(HandshakeError::Fault)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            HandshakeError::Fault(TlsFault::Handshake(
                "the host in the address is no name that a certificate can have".to_owned(),
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
    // Named, so that it does not matter what else the process installs, or has compiled in.
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
    // Two servers, a few nodes.
    config.resumption = Resumption::in_memory_sessions(8);
    Ok(config)
}

/// The system's CAs, read once in a process; again after a failure.
async fn system_roots() -> Result<Arc<RootCertStore>, TlsFault> {
    static ROOTS: OnceCell<Arc<RootCertStore>> = OnceCell::const_new();
    let roots = ROOTS.get_or_try_init(async || {
        // Some hundred files on some systems.
        let read = tokio::task::spawn_blocking(read_system_roots).await;
        read.unwrap_or_else(|_| Err(TlsFault::NoTrust("reading them was cancelled".to_owned())))
    });
    roots.await.cloned()
}

fn read_system_roots() -> Result<Arc<RootCertStore>, TlsFault> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Old ones that nobody reads any more are no reason to trust nobody.
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
        .map_err(|error| TlsOptionsError::Key(in_words(&error)))?;
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

/// One at least.
fn read_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(in_words(&pem::Error::NoItemsFound)),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(in_words(&error)),
    }
}

/// Without what was read: it may be a key.
fn in_words(error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => "there is none in it",
        pem::Error::MissingSectionEnd { .. } => "it is cut off",
        pem::Error::Base64Decode(_) => "it is not base64 between its lines",
        pem::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => "it is no text",
        _ => "it is malformed",
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
    fn nothing_of_a_key_is_printed() {
        let options = showing(identity());
        let tls = Tls::new(&options).unwrap();
        assert_eq!(
            format!("{options:?} {tls:?}"),
            "TlsOptions { ca: None, identity: Some(TlsIdentity { .. }) } \
             Tls { own_ca: false, has_certificate: true }"
        );
    }

    #[test]
    fn what_is_no_pem_is_told_by_its_part() {
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
