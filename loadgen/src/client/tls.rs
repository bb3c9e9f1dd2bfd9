//! Whom to trust, and how to say which HTTP will be spoken.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::settings::HttpVersion;
use super::target::TargetError;

/// The TLS side of a target: trusts `ca_file`, or else what the machine trusts.
pub(super) fn configuration(
    ca_file: Option<&Path>,
    http: HttpVersion,
) -> Result<Arc<ClientConfig>, TargetError> {
    let roots = match ca_file {
        Some(path) => roots_of(path)?,
        None => roots_of_machine()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut configuration = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TargetError::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    configuration.alpn_protocols = vec![protocol(http).to_vec()];
    Ok(Arc::new(configuration))
}

/// The name of a version of HTTP in ALPN (RFC 7301; RFC 9113, section 3.2).
pub(super) fn protocol(http: HttpVersion) -> &'static [u8] {
    match http {
        HttpVersion::Http1 => b"http/1.1",
        HttpVersion::Http2 => b"h2",
    }
}

fn roots_of(path: &Path) -> Result<RootCertStore, TargetError> {
    let problem = |problem: String| TargetError::CaFile {
        path: path.to_owned(),
        problem,
    };
    let mut roots = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(path).map_err(|error| problem(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| problem(error.to_string()))?;
        let added = roots.add(certificate);
        added.map_err(|error| problem(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(problem("it has no certificate in PEM".into()));
    }
    Ok(roots)
}

fn roots_of_machine() -> Result<RootCertStore, TargetError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Machines carry certificates that no longer parse; the others serve.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let problems: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        return Err(TargetError::NoAuthorities(problems.join("; ")));
    }
    Ok(roots)
}
