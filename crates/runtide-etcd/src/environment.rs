//! Configuration by the variables of `etcdctl`: [`Config::from_env`].

use std::{collections::BTreeMap, env, time::Duration};

use runtide_core::{Error, ErrorKind, Result};

use crate::config::{Config, OPERATION, Tls};

impl Config {
    /// Reads the variables of `etcdctl`: `ETCDCTL_ENDPOINTS`, `ETCDCTL_CACERT`, `ETCDCTL_CERT` and `ETCDCTL_KEY`,
    /// `ETCDCTL_USER` (`name` or `name:password`) and `ETCDCTL_PASSWORD`, `ETCDCTL_DIAL_TIMEOUT` and
    /// `ETCDCTL_COMMAND_TIMEOUT` (`2s`, `500ms`, `1m`); and `RUNTIDE_ETCD_PREFIX`. Makes no connection.
    ///
    /// # Errors
    /// `InvalidInput` with the variable and, but for a password, its value; `Unsupported` for
    /// `ETCDCTL_INSECURE_SKIP_TLS_VERIFY`: the server is always verified.
    pub fn from_env() -> Result<Self> {
        Environment::of_process().config()
    }
}

/// Variables and their values; a test makes its own.
#[derive(Default)]
struct Environment(BTreeMap<String, String>);

impl Environment {
    fn of_process() -> Self {
        let ours = |name: &str| name.starts_with("ETCDCTL_") || name == "RUNTIDE_ETCD_PREFIX";
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok().filter(|name| ours(name))?, value.to_string_lossy().into_owned()))
        };
        Self(env::vars_os().filter_map(text).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    fn config(&self) -> Result<Config> {
        let mut config = Config::default();
        if let Some(endpoints) = self.get("ETCDCTL_ENDPOINTS") {
            config = config.with_endpoints(endpoints.split(',').map(str::trim));
        }
        if let Some(prefix) = self.get("RUNTIDE_ETCD_PREFIX") {
            config = config.with_prefix(prefix);
        }
        if self.get("ETCDCTL_INSECURE_SKIP_TLS_VERIFY").is_some_and(|value| value != "false") {
            let message = "the server is always verified: name its certificate authority with ETCDCTL_CACERT";
            return Err(Error::new(ErrorKind::Unsupported, OPERATION, message)
                .with_context("variable", "ETCDCTL_INSECURE_SKIP_TLS_VERIFY"));
        }
        let mut tls = Tls::default();
        if let Some(ca) = self.get("ETCDCTL_CACERT") {
            tls = tls.with_ca(ca);
        }
        tls = match (self.get("ETCDCTL_CERT"), self.get("ETCDCTL_KEY")) {
            (Some(certificate), Some(key)) => tls.with_identity(certificate, key),
            (None, None) => tls,
            (Some(_), None) => return Err(refused("ETCDCTL_KEY", "ETCDCTL_CERT is of no use without it")),
            (None, Some(_)) => return Err(refused("ETCDCTL_CERT", "ETCDCTL_KEY is of no use without it")),
        };
        if tls != Tls::default() {
            config = config.with_tls(tls);
        }
        if let Some(user) = self.get("ETCDCTL_USER") {
            config = match (self.get("ETCDCTL_PASSWORD"), user.split_once(':')) {
                (Some(password), _) => config.with_user(user, password),
                (None, Some((user, password))) => config.with_user(user, password),
                (None, None) => return Err(refused("ETCDCTL_PASSWORD", "ETCDCTL_USER is of no use without it")),
            };
        }
        if let Some(timeout) = self.duration("ETCDCTL_DIAL_TIMEOUT")? {
            config = config.with_connect_timeout(timeout);
        }
        if let Some(timeout) = self.duration("ETCDCTL_COMMAND_TIMEOUT")? {
            config = config.with_request_timeout(timeout);
        }
        Ok(config)
    }

    fn duration(&self, name: &'static str) -> Result<Option<Duration>> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match text.get(number.len()..) {
            Some("ms") => 0.001,
            Some("s") => 1.0,
            Some("m") => 60.0,
            _ => f64::NAN,
        };
        let seconds = number.parse::<f64>().unwrap_or(f64::NAN) * unit;
        let duration = Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero());
        let why = format!("'{text}' is not a time: expected something like 5s, 500ms or 1m");
        duration.map(Some).ok_or_else(|| refused(name, &why))
    }
}

fn refused(variable: &'static str, why: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, OPERATION, why).with_context("variable", variable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Config> {
        let owned = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Environment(owned.collect()).config()
    }

    #[test]
    fn without_variables_it_is_the_default() {
        let config = of(&[]).unwrap();
        assert_eq!((config.endpoints, config.prefix), (vec!["127.0.0.1:2379".to_owned()], "/runtide/".to_owned()));
    }

    #[test]
    fn all_of_etcdctls_are_read() {
        let config = of(&[
            ("ETCDCTL_ENDPOINTS", "https://a:1, https://b:2"),
            ("ETCDCTL_CACERT", "/ca"),
            ("ETCDCTL_CERT", "/cert"),
            ("ETCDCTL_KEY", "/key"),
            ("ETCDCTL_USER", "u:p:q"),
            ("ETCDCTL_DIAL_TIMEOUT", "500ms"),
            ("ETCDCTL_COMMAND_TIMEOUT", "1m"),
            ("RUNTIDE_ETCD_PREFIX", "/x/"),
        ])
        .unwrap();
        assert_eq!(config.endpoints, ["https://a:1", "https://b:2"]);
        assert_eq!(config.tls, Some(Tls::default().with_ca("/ca").with_identity("/cert", "/key")));
        let (user, password) = config.user.unwrap();
        assert_eq!((user.as_str(), password.expose()), ("u", "p:q"));
        assert_eq!(
            (config.connect_timeout, config.request_timeout),
            (Duration::from_millis(500), Duration::from_secs(60))
        );
        assert_eq!(config.prefix, "/x/");
    }

    #[test]
    fn implausible_settings_are_named_and_no_password_is_shown() {
        for (variables, named) in [
            (&[("ETCDCTL_USER", "u")][..], "ETCDCTL_PASSWORD"),
            (&[("ETCDCTL_CERT", "/c")], "ETCDCTL_KEY"),
            (&[("ETCDCTL_DIAL_TIMEOUT", "soon")], "ETCDCTL_DIAL_TIMEOUT"),
            (&[("ETCDCTL_DIAL_TIMEOUT", "-1s")], "ETCDCTL_DIAL_TIMEOUT"),
            (&[("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "true"), ("ETCDCTL_PASSWORD", "hunter2")], "ETCDCTL_INSECURE"),
        ] {
            let error = of(variables).unwrap_err();
            assert!(error.to_string().contains(named) && !format!("{error:?}").contains("hunter2"), "{error}");
        }
    }
}
