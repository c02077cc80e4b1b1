//! Certificates, made once in a run: of CAs, servers and clients, valid and invalid. Also a TLS proxy in front
//! of a plain server.

use super::lifetime;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The path of one of these, each a certificate `.pem` with its `.key`:
/// - `ca`: the trusted CA; `other-ca`: another one with the same name; `foreign-ca`: a third
/// - `server`: for localhost only; `expired`, `early`: for localhost, valid in the past and in the future
/// - `client`: signed by `ca`; `stranger`: signed by `foreign-ca`
pub(crate) fn file(name: &str) -> String {
    folder().join(name).display().to_string()
}

fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(make)
}

fn make() -> PathBuf {
    let folder = lifetime::folder("certificates");
    let write = |name: &str, certificate: &str, key: &KeyPair| {
        std::fs::write(folder.join(format!("{name}.pem")), certificate).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    };
    let authority = |name: &str, subject: &str| {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, subject);
        let key = KeyPair::generate().unwrap();
        write(name, &params.self_signed(&key).unwrap().pem(), &key);
        Issuer::new(params, key)
    };
    let [ca, _] = ["ca", "other-ca"].map(|name| authority(name, "ours"));
    let foreign_ca = authority("foreign-ca", "theirs");
    let sign = |name: &str, issuer: &Issuer<'_, KeyPair>, from: i32, to: i32| {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let key = KeyPair::generate().unwrap();
        write(name, &params.signed_by(&key, issuer).unwrap().pem(), &key);
    };
    sign("server", &ca, 2020, 2090);
    sign("expired", &ca, 2020, 2021);
    sign("early", &ca, 2080, 2090);
    sign("client", &ca, 2020, 2090);
    sign("stranger", &foreign_ca, 2020, 2090);
    folder
}

/// Starts a TLS proxy with the certificate `name` in front of the port `target`; returns its port.
pub(crate) async fn in_front_of(target: u16, name: &str) -> u16 {
    let chain = CertificateDer::from_pem_file(file(&format!("{name}.pem"))).unwrap();
    let key = PrivateKeyDer::from_pem_file(file(&format!("{name}.key"))).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut near = acceptor.accept(near).await?;
                let mut far = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    port
}
