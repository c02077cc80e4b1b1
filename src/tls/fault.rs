//! What can be wrong with TLS between this process and a server, one variant per remedy.

use std::fmt;
use std::time::Duration;

/// Why there is no TLS with a server. Nothing but the handshake was sent; somebody has to correct
/// something before it is worth trying again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsFault {
    /// The server's certificate is signed by no CA that is trusted: not the server, or its CA must be
    /// named.
    UnknownIssuer {
        /// Whether CAs were given, in place of the system's.
        own_ca: bool,
    },
    /// The server's certificate is for other names.
    WrongName {
        /// As the address has it.
        host: String,
        /// As the certificate has them: peer text, escaped and shortened.
        names: String,
    },
    /// The server's certificate has expired.
    Expired {
        /// How long ago, to the second.
        ago: Duration,
    },
    /// The server's certificate is not valid yet: perhaps a clock is wrong.
    NotYetValid {
        /// For how long still, to the second.
        left: Duration,
    },
    /// Something else is wrong with the server's certificate.
    Certificate(String),
    /// What answers there does not speak TLS.
    NotSpoken,
    /// The server speaks TLS only, and the address does not.
    Expected,
    /// The server wants a certificate from this client, which has none to show.
    ClientCertificateMissing,
    /// The server refuses the certificate that this client shows; what it says of it.
    ClientCertificateRefused(String),
    /// The system's CAs cannot be read.
    NoTrust(String),
    /// The two find no way of talking that is safe enough.
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
                write!(
                    f,
                    "its certificate is for no name at all, and not for {host}"
                )
            }
            Self::WrongName { host, names } => {
                write!(f, "its certificate is for {names}, not for {host}")
            }
            Self::Expired { ago } => write!(f, "its certificate expired {} ago", roughly(*ago)),
            Self::NotYetValid { left } => {
                write!(
                    f,
                    "its certificate is not valid yet, but in {}",
                    roughly(*left)
                )
            }
            Self::Certificate(reason) => write!(f, "its certificate cannot be used: {reason}"),
            Self::NotSpoken => f.write_str("what answers there does not speak it"),
            Self::Expected => f.write_str("the server expects it, and the address does not say so"),
            Self::ClientCertificateMissing => f.write_str("it wants a certificate of this client"),
            Self::ClientCertificateRefused(said) => {
                write!(f, "it refuses this client's certificate: {said}")
            }
            Self::NoTrust(reason) => write!(f, "the CAs of this machine cannot be read: {reason}"),
            Self::Handshake(reason) => f.write_str(reason),
        }
    }
}

/// `3 d`: the largest unit that it has two of, so that it is not off by half.
fn roughly(time: Duration) -> String {
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

    /// What this side brings to a handshake.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Side {
        pub(crate) own_ca: bool,
        pub(crate) has_certificate: bool,
    }

    impl TlsFault {
        /// What TLS has to say of an error on a stream; `None`: nothing, the stream itself failed.
        pub(crate) fn of(error: &io::Error, side: Side) -> Option<Self> {
            let error = error.get_ref()?.downcast_ref::<Error>()?;
            Some(match error {
                Error::InvalidCertificate(error) => certificate(error, side),
                Error::InvalidMessage(_) => Self::NotSpoken,
                Error::AlertReceived(alert) => alerted(*alert, side),
                Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
                    Self::Handshake("it speaks none of TLS 1.2 and 1.3".to_owned())
                }
                error => Self::Handshake(quote(error.to_string().as_bytes())),
            })
        }
    }

    fn certificate(error: &CertificateError, side: Side) -> TlsFault {
        match error {
            // The second: by another CA of the same name, such as an earlier one.
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

    /// `DnsName("a"), IpAddress(::1)` as `a, ::1`.
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

    /// The server broke off. What it says of certificates can only be meant for ours.
    fn alerted(alert: AlertDescription, side: Side) -> TlsFault {
        use AlertDescription as Alert;
        let said = format!("{alert:?}");
        match alert {
            Alert::CertificateRequired => TlsFault::ClientCertificateMissing,
            // How TLS 1.2 says the same, among other things.
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
                TlsFault::Handshake("it speaks none of TLS 1.2 and 1.3".to_owned())
            }
            _ => TlsFault::Handshake(format!("it broke off the handshake: {said}")),
        }
    }
}

#[cfg(feature = "tls")]
pub(crate) use self::from_rustls::Side;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_roughly() {
        for (seconds, told) in [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7199, "119 min"),
            (7200, "2 h"),
            (2 * 24 * 60 * 60, "2 d"),
            (400 * 24 * 60 * 60, "400 d"),
        ] {
            assert_eq!(roughly(Duration::from_secs(seconds)), told);
        }
    }
}
