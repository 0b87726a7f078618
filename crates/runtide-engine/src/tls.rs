//! TLS by rustls with one provider, named here and never taken from the process (a missing or second default would panic).

use std::{path::Path, sync::Arc};

use runtide_core::{Error, ErrorKind, Result};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem, pem::PemObject},
    },
};

use crate::endpoint::{Endpoint, Tls};

/// `None` for an endpoint that is not `https`.
pub(crate) fn connector(endpoint: &Endpoint, tls: Option<&Tls>) -> Result<Option<(TlsConnector, ServerName<'static>)>> {
    let Endpoint::Tcp { host, tls: true, .. } = endpoint else { return Ok(None) };
    let name = ServerName::try_from(host.clone())
        .map_err(|error| invalid(format!("'{host}' is no name that a certificate could have")).with_source(error))?;
    let roots = match tls.and_then(|tls| tls.ca.as_deref()) {
        Some(ca) => roots_from(ca)?,
        None => native_roots()?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid("the provider has no usable protocol version").with_source(error))?
        .with_root_certificates(roots);
    let config = match tls.and_then(|tls| tls.identity.as_ref()) {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            builder.with_client_auth_cert(certificates(certificate)?, private_key(key)?).map_err(|error| {
                invalid("the client's certificate and key are unusable, or do not go together")
                    .with_context("path", certificate.display())
                    .with_context("key", key.display())
                    .with_source(error)
            })?
        }
    };
    Ok(Some((TlsConnector::from(Arc::new(config)), name)))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, "tls", message)
}

/// The error for an unreadable file. Its text is ours, since the parser's quotes the line, which may be a key.
fn unreadable(path: &Path, what: &str) -> impl FnOnce(pem::Error) -> Error {
    let message = format!("{what} cannot be read from '{}'", path.display());
    let path = path.display().to_string();
    move |error| {
        let why = match error {
            pem::Error::Io(error) => return invalid(message).with_context("path", path).with_source(error),
            pem::Error::NoItemsFound => "the file has none",
            pem::Error::IllegalSectionStart { .. } | pem::Error::MissingSectionEnd { .. } => {
                "a BEGIN or END line is missing, or not on a line of its own"
            }
            pem::Error::Base64Decode(_) => "the text between BEGIN and END is not base64",
            _ => "it is not PEM",
        };
        invalid(format!("{message}: {why}")).with_context("path", path)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let unreadable = || unreadable(path, "a certificate");
    let all: std::result::Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(unreadable())?.collect();
    let all = all.map_err(unreadable())?;
    if all.is_empty() {
        return Err(unreadable()(pem::Error::NoItemsFound));
    }
    Ok(all)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).map_err(unreadable(path, "a private key"))
}

fn roots_from(path: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| {
            invalid("this CA's certificate is unusable").with_context("path", path.display()).with_source(error)
        })?;
    }
    Ok(roots)
}

fn native_roots() -> Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(invalid("this machine has no root certificates, and no CA is configured"));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusable_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let (missing, empty) = (folder.path().join("missing.pem"), folder.path().join("empty.pem"));
        std::fs::write(&empty, "").unwrap();
        let endpoint: Endpoint = "https://host".parse().unwrap();
        for tls in [
            Tls::default().with_ca(&missing),
            Tls::default().with_ca(&empty),
            Tls::default().with_identity(&missing, &missing),
        ] {
            let Err(error) = connector(&endpoint, Some(&tls)) else { panic!("{tls:?} was taken") };
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let named = [&missing, &empty].iter().any(|path| error.to_string().contains(path.to_str().unwrap()));
            // On a machine without root certificates that error comes before the client's files are read.
            assert!(named || error.to_string().contains("root certificates"), "{error}");
        }
    }

    #[test]
    fn a_plain_endpoint_needs_no_files() {
        let tls = Tls::default().with_ca("/nonexistent");
        assert!(connector(&Endpoint::default(), Some(&tls)).unwrap().is_none());
    }
}
