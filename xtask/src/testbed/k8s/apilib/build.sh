# An API server of the Kubernetes libraries of Debian's newest suite, with that suite's Go and etcd. Nothing is installed: all of it is
# unpacked in WORK. The suite moves, so that a build may fail some day.
set -eu
work=$1 out=$2 mirror=$3
go=1.26
export GOMAXPROCS=1

# An apt of its own, for which no package is installed, so that it names all that the libraries need.
apt="$work/apt"
mkdir -p "$apt/parts" "$apt/preferences" "$apt/lists/partial" "$apt/cache/archives/partial" "$work/dl"
: > "$apt/status"
cat > "$apt/parts/debian.sources" <<END
Types: deb
URIs: $mirror
Suites: sid
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
END
options="-qq -o APT::Sandbox::User=root -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts=$apt/parts
  -o Dir::Etc::preferencesparts=$apt/preferences -o Dir::State::lists=$apt/lists -o Dir::Cache=$apt/cache -o Dir::State::status=$apt/status
  -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false -o Acquire::Languages=none -o APT::Install-Recommends=false"
if [ ! -e "$work/dl/ok" ]; then
  apt-get $options update
  libraries=$(apt-get $options -s install golang-k8s-apiextensions-apiserver-dev golang-k8s-kube-openapi-dev | awk '/^Inst golang-.*-dev /{print $2}')
  cd "$work/dl"
  apt-get $options download $libraries golang-$go-go golang-$go-src etcd-server
  apt-cache $options show golang-k8s-apiserver-dev | sed -n 's/^Version: //p' | head -1 > version
  touch ok
fi
if [ ! -e "$work/root/ok" ]; then
  for package in "$work"/dl/*.deb; do dpkg -x "$package" "$work/root"; done
  touch "$work/root/ok"
fi

export GOROOT="$work/root/usr/lib/go-$go" GOPATH="$work/root/usr/share/gocode" GOCACHE="$work/gocache" HOME="$work"
export GO111MODULE=off GOPROXY=off GOFLAGS= GOTOOLCHAIN=local CGO_ENABLED=0 PATH="$work/root/usr/lib/go-$go/bin:$PATH"
here="$GOPATH/src/runtide/k8s-apilib"
mkdir -p "$here/openapi"
cp "$work/main.go" "$here/main.go"
cd "$GOPATH/src"
if [ ! -s "$here/openapi/zz.go" ]; then
  go build -p 1 -o "$work/openapi-gen" k8s.io/kube-openapi/cmd/openapi-gen
  "$work/openapi-gen" --output-dir "$here/openapi" --output-pkg runtide/k8s-apilib/openapi --output-file zz.go --go-header-file /dev/null \
    --report-filename "$work/violations" k8s.io/api/core/v1 k8s.io/api/coordination/v1 k8s.io/api/events/v1 k8s.io/api/storage/v1 \
    k8s.io/api/node/v1 k8s.io/apimachinery/pkg/api/resource k8s.io/apimachinery/pkg/apis/meta/v1 k8s.io/apimachinery/pkg/runtime \
    k8s.io/apimachinery/pkg/util/intstr k8s.io/apimachinery/pkg/version
fi
version=$(sed 's/-.*//' "$work/dl/version")
flags="-s -w"
for value in gitVersion=v1.${version#0.} gitMajor=1 gitMinor=$(echo "$version" | cut -d. -f2); do
  flags="$flags -X k8s.io/component-base/version.$value"
done
go build -p 1 -trimpath -ldflags "$flags" -o "$out/k8s-apilib" runtide/k8s-apilib
cp "$work/root/usr/bin/etcd" "$out/etcd"
