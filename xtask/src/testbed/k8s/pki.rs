//! Certificates, tokens and kubeconfigs: an authority of the testbed's own, thrown away with it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::super::packages;
use crate::failure::{Doing, Failure, Outcome};
use crate::process::{self, Interrupt};

const LIMIT: Duration = Duration::from_secs(60);

/// Makes them in the folder that is its first argument; the server's certificates are valid for loopback.
const MAKE: &str = r#"
set -eu
umask 077
cd "$1"
key() { openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out "$1"; }
key ca.key
openssl req -x509 -new -key ca.key -sha256 -days 3650 -subj /CN=runtide-testbed -addext keyUsage=critical,keyCertSign,cRLSign -out ca.crt
server=DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:10.96.0.1
certificate() { # NAME SUBJECT USAGE [NAMES]
  key "$1.key"
  openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
  printf 'basicConstraints=CA:FALSE\nkeyUsage=digitalSignature,keyEncipherment\nextendedKeyUsage=%s\n%s\n' \
    "$3" "${4:+subjectAltName=$4}" > "$1.ext"
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -sha256 -extfile "$1.ext" -out "$1.crt"
  rm "$1.csr" "$1.ext"
}
certificate apiserver /CN=kube-apiserver serverAuth $server
certificate kubelet-server /CN=127.0.0.1 serverAuth $server
certificate kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth
certificate admin /O=system:masters/CN=admin clientAuth
certificate reader /O=readers/CN=reader clientAuth
certificate controller-manager /CN=system:kube-controller-manager clientAuth
certificate scheduler /CN=system:kube-scheduler clientAuth
certificate node /O=system:nodes/CN=system:node:127.0.0.1 clientAuth
openssl genrsa -out sa.key 2048
openssl rsa -in sa.key -pubout -out sa.pub
token() { openssl rand -hex 16; }
admin=$(token) reader=$(token)
printf '%s' "$admin" > admin.token
printf '%s' "$reader" > reader.token
printf '%s,admin,admin,"system:masters"\n%s,reader,reader,"readers"\n' "$admin" "$reader" > tokens.csv
"#;

/// Clients with a certificate, each with a kubeconfig of its name; the second has a namespace.
const CLIENTS: [&str; 5] = ["admin", "reader", "controller-manager", "scheduler", "node"];

/// Users that have a token as well, in `NAME-token.kubeconfig`.
const WITH_TOKEN: [&str; 2] = ["admin", "reader"];

/// Makes all of them below the folder: `pki`, and the kubeconfigs beside it.
pub(super) fn make(folder: &Path, port: u16, reader: &str) -> Outcome<()> {
    let pki = folder.join("pki");
    fs::create_dir_all(&pki).doing(format_args!("cannot make {}", pki.display()))?;
    let mut command = packages::command("sh");
    command.args(["-c", MAKE, "pki"]).arg(&pki);
    let said = process::capture(&mut command, LIMIT, Interrupt::Waits)?;
    if !said.status.success() {
        return Err(Failure::failed(format_args!("cannot make certificates: {}", said.complaint())));
    }
    let namespace = |name: &str| (name == "reader").then_some(reader);
    for name in CLIENTS {
        let user = json!({
            "client-certificate": pki.join(format!("{name}.crt")),
            "client-key": pki.join(format!("{name}.key")),
        });
        write(folder, name, &kubeconfig(&pki, port, name, &user, namespace(name)))?;
    }
    for name in WITH_TOKEN {
        let file = pki.join(format!("{name}.token"));
        let token = fs::read_to_string(&file).doing(format_args!("cannot read {}", file.display()))?;
        let user = json!({ "token": token });
        write(folder, &format!("{name}-token"), &kubeconfig(&pki, port, name, &user, namespace(name)))?;
    }
    Ok(())
}

fn kubeconfig(
    pki: &Path,
    port: u16,
    name: &str,
    user: &serde_json::Value,
    namespace: Option<&str>,
) -> serde_json::Value {
    let mut context = json!({ "cluster": "testbed", "user": name });
    if let (Some(namespace), Some(context)) = (namespace, context.as_object_mut()) {
        context.insert("namespace".to_owned(), namespace.into());
    }
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "testbed",
            "cluster": { "server": format!("https://127.0.0.1:{port}"), "certificate-authority": pki.join("ca.crt") },
        }],
        "users": [{ "name": name, "user": user }],
        "contexts": [{ "name": "testbed", "context": context }],
        "current-context": "testbed",
    })
}

/// JSON is YAML as well.
fn write(folder: &Path, name: &str, kubeconfig: &serde_json::Value) -> Outcome<()> {
    let path = folder.join(format!("{name}.kubeconfig"));
    fs::write(&path, format!("{kubeconfig:#}\n"))
        .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o600)))
        .doing(format_args!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_names_its_user_and_its_namespace() {
        let of = |namespace| kubeconfig(Path::new("/p"), 6443, "reader", &json!({ "token": "t" }), namespace);
        let with = of(Some("here"));
        assert_eq!(with.pointer("/contexts/0/context/namespace"), Some(&json!("here")));
        assert_eq!(with.pointer("/clusters/0/cluster/server"), Some(&json!("https://127.0.0.1:6443")));
        assert_eq!(with.pointer("/clusters/0/cluster/certificate-authority"), Some(&json!("/p/ca.crt")));
        assert_eq!(of(None).pointer("/contexts/0/context/namespace"), None);
    }
}
