//! Validation of a spec, before any object is made.

use runtide_core::{
    Error, ErrorKind, Result, RuntimeBackend, RuntimeBackendExt,
    manager::{OperationId, Readiness, SidecarSpec},
};

fn wrong(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidInput, "sidecar.start", message)
}

pub(super) fn check(spec: &SidecarSpec, backend: &dyn RuntimeBackend) -> Result<()> {
    if spec.deadline.is_zero() {
        return Err(wrong("the deadline is zero"));
    }
    if spec.network.as_ref().is_some_and(|network| network.name.is_empty()) {
        return Err(wrong("the network has no name"));
    }
    if spec.instance.name.as_ref().is_some_and(String::is_empty) {
        return Err(wrong("the name is empty"));
    }
    match &spec.ready {
        Readiness::Http { path, .. } => {
            // The path becomes part of a request line, so it must not end the line.
            if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(wrong("an HTTP path begins with '/' and has only visible ASCII in it"));
            }
            Ok(())
        }
        Readiness::Command(argv) if argv.is_empty() => Err(wrong("the command is empty")),
        Readiness::Command(_) if backend.exec().is_none() => Err(backend.unsupported("exec_run")),
        Readiness::Log(text) if text.is_empty() || text.contains('\n') => {
            Err(wrong("the text to find in the output must be neither empty nor longer than a line"))
        }
        Readiness::Log(_) if backend.logs().is_none() => Err(backend.unsupported("logs_follow")),
        _ => Ok(()),
    }
}

/// The instance's name. It is chosen before the create, so that the compensation can name it.
pub(super) fn name(spec: &SidecarSpec, operation: &OperationId) -> String {
    spec.instance.name.clone().unwrap_or_else(|| format!("runtide-{operation}"))
}
