//! Faults of TLS between this process and a server, one variant per remedy.

use std::fmt;
use std::time::Duration;

/// Why TLS with a server failed. Nothing but the handshake was sent. Retrying is useless before a certificate
/// or the configuration is corrected.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsFault {
    /// The server's certificate is signed by no trusted CA: it is another server, or its CA must be configured.
    UnknownIssuer {
        /// Whether CAs were configured, in place of the system's.
        own_ca: bool,
    },
    /// The server's certificate is for other names.
    WrongName {
        /// The host in the address.
        host: String,
        /// The names in the certificate: peer text, escaped and shortened.
        names: String,
    },
    /// The server's certificate has expired.
    Expired {
        /// How long ago, in whole seconds.
        ago: Duration,
    },
    /// The server's certificate is not valid yet: perhaps a clock is wrong.
    NotYetValid {
        /// Time until it is valid, in whole seconds.
        left: Duration,
    },
    /// The server's certificate is invalid for another reason.
    Certificate(String),
    /// The server does not use TLS.
    NotSpoken,
    /// The server requires TLS, and the address does not ask for it.
    Expected,
    /// The server requires a client certificate, and none is configured.
    ClientCertificateMissing,
    /// The server refused the client certificate, with this alert.
    ClientCertificateRefused(String),
    /// The system's CAs cannot be read.
    NoTrust(String),
    /// The handshake failed for another reason, such as no common version of TLS.
    Handshake(String),
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownIssuer { own_ca: true } => {
                f.write_str("its certificate is signed by none of the given CAs")
            }
            Self::UnknownIssuer { own_ca: false } => {
                f.write_str("its certificate is signed by no CA that this machine trusts")
            }
            Self::WrongName { host, names } if names.is_empty() => {
                write!(f, "its certificate has no name, so it is not for {host}")
            }
            Self::WrongName { host, names } => {
                write!(f, "its certificate is for {names}, not for {host}")
            }
            Self::Expired { ago } => write!(f, "its certificate expired {} ago", rounded(*ago)),
            Self::NotYetValid { left } => {
                write!(
                    f,
                    "its certificate is not valid yet; it will be in {}",
                    rounded(*left)
                )
            }
            Self::Certificate(reason) => write!(f, "its certificate cannot be used: {reason}"),
            Self::NotSpoken => f.write_str("the server does not use TLS"),
            Self::Expected => {
                f.write_str("the server requires TLS, and the address does not ask for it")
            }
            Self::ClientCertificateMissing => {
                f.write_str("it requires a client certificate, and none is configured")
            }
            Self::ClientCertificateRefused(said) => {
                write!(f, "it refuses the client certificate: {said}")
            }
            Self::NoTrust(reason) => {
                write!(f, "this machine's CA certificates cannot be read: {reason}")
            }
            Self::Handshake(reason) => f.write_str(reason),
        }
    }
}

/// Formats a duration as `3 d`, in the largest unit of which it has at least two.
fn rounded(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [("d", 24 * 60 * 60), ("h", 60 * 60), ("min", 60)];
    let (unit, each) = units
        .into_iter()
        .find(|(_, each)| seconds >= 2 * each)
        .unwrap_or(("s", 1));
    format!("{} {unit}", seconds / each)
}

#[cfg(feature = "tls")]
mod from_rustls {
    use std::io;
    use std::time::Duration;

    use rustls::pki_types::UnixTime;
    use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

    use super::TlsFault;
    use crate::text::quote;

    /// The parts of this side's configuration that change what a fault means.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Side {
        pub(crate) own_ca: bool,
        pub(crate) has_certificate: bool,
    }

    impl TlsFault {
        /// The fault of TLS behind an error of a stream; `None`: the stream itself failed.
        pub(crate) fn of(error: &io::Error, side: Side) -> Option<Self> {
            let error = error.get_ref()?.downcast_ref::<Error>()?;
            Some(match error {
                Error::InvalidCertificate(error) => certificate(error, side),
                Error::InvalidMessage(_) => Self::NotSpoken,
                Error::AlertReceived(alert) => alerted(*alert, side),
                Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
                    Self::Handshake("it supports neither TLS 1.2 nor TLS 1.3".to_owned())
                }
                error => Self::Handshake(quote(error.to_string().as_bytes())),
            })
        }
    }

    fn certificate(error: &CertificateError, side: Side) -> TlsFault {
        match error {
            // `BadSignature`: signed by another CA of the same name, such as an earlier one.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                TlsFault::UnknownIssuer {
                    own_ca: side.own_ca,
                }
            }
            CertificateError::NotValidForNameContext {
                expected,
                presented,
            } => TlsFault::WrongName {
                host: expected.to_str().into_owned(),
                names: names(presented),
            },
            CertificateError::ExpiredContext { time, not_after } => TlsFault::Expired {
                ago: between(*not_after, *time),
            },
            CertificateError::NotValidYetContext { time, not_before } => TlsFault::NotYetValid {
                left: between(*time, *not_before),
            },
            error => TlsFault::Certificate(quote(error.to_string().as_bytes())),
        }
    }

    /// Formats `DnsName("a"), IpAddress(::1)` as `a, ::1`.
    fn names(presented: &[String]) -> String {
        let bare = presented.iter().map(|name| {
            let inner = name.split_once('(').map_or(name.as_str(), |(_, rest)| rest);
            inner.trim_end_matches(')').trim_matches('"')
        });
        quote(bare.collect::<Vec<_>>().join(", ").as_bytes())
    }

    fn between(earlier: UnixTime, later: UnixTime) -> Duration {
        Duration::from_secs(later.as_secs().saturating_sub(earlier.as_secs()))
    }

    /// The fault behind an alert from the server. An alert about certificates means the client's.
    fn alerted(alert: AlertDescription, side: Side) -> TlsFault {
        use AlertDescription as Alert;
        let said = format!("{alert:?}");
        match alert {
            Alert::CertificateRequired => TlsFault::ClientCertificateMissing,
            // The alerts of TLS 1.2 for a missing client certificate, among other causes.
            Alert::HandshakeFailure | Alert::BadCertificate if !side.has_certificate => {
                TlsFault::ClientCertificateMissing
            }
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::DecryptError
            | Alert::AccessDenied
                if side.has_certificate =>
            {
                TlsFault::ClientCertificateRefused(said)
            }
            Alert::ProtocolVersion => {
                TlsFault::Handshake("it supports neither TLS 1.2 nor TLS 1.3".to_owned())
            }
            _ => TlsFault::Handshake(format!("it aborted the handshake: {said}")),
        }
    }
}

#[cfg(feature = "tls")]
pub(crate) use self::from_rustls::Side;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rounded_to_their_largest_unit() {
        for (seconds, expected) in [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7199, "119 min"),
            (7200, "2 h"),
            (2 * 24 * 60 * 60, "2 d"),
            (400 * 24 * 60 * 60, "400 d"),
        ] {
            assert_eq!(rounded(Duration::from_secs(seconds)), expected);
        }
    }
}
