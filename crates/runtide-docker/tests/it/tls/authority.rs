//! Certificates that are trusted in one test alone, in folders laid out as `DOCKER_CERT_PATH`.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use runtide_docker::Tls;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A CA, which signs the certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    certificate_pem: String,
    pub(crate) key_pem: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// For a server of this name.
    pub(crate) fn server(&self, name: &str) -> Identity {
        self.sign(vec![name.to_owned()], ExtendedKeyUsagePurpose::ServerAuth, |_| {})
    }

    /// For a server, expired.
    pub(crate) fn expired_server(&self, name: &str) -> Identity {
        self.sign(vec![name.to_owned()], ExtendedKeyUsagePurpose::ServerAuth, |params| {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2020, 2, 1);
        })
    }

    pub(crate) fn client(&self) -> Identity {
        self.sign(Vec::new(), ExtendedKeyUsagePurpose::ClientAuth, |_| {})
    }

    fn sign(
        &self,
        names: Vec<String>,
        purpose: ExtendedKeyUsagePurpose,
        edit: impl Fn(&mut CertificateParams),
    ) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![purpose];
        edit(&mut params);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Identity {
            chain: vec![certificate.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }
}

/// `ca.pem`, `cert.pem` and `key.pem`.
pub(crate) struct Files(tempfile::TempDir);

impl Files {
    pub(crate) fn new(authority: &Authority, client: Option<&Identity>) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("ca.pem", &authority.0.pem());
        if let Some(client) = client {
            files.write("cert.pem", &client.certificate_pem);
            files.write("key.pem", &client.key_pem);
        }
        files
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn folder(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// TLS options with the files that exist.
    pub(crate) fn tls(&self) -> Tls {
        let tls = Tls::default().with_ca(self.path("ca.pem"));
        if self.path("cert.pem").exists() {
            tls.with_identity(self.path("cert.pem"), self.path("key.pem"))
        } else {
            tls
        }
    }
}
