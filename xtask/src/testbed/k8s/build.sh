# Kubernetes 1.20.2 of Debian 12's source package, with Debian 12's Go. Nothing is installed: sources and Go are unpacked in WORK.
set -eu
work=$1 out=$2 mirror=$3
go=1.19 version=1.20.2
export GOMAXPROCS=1

# An apt of its own: Debian 12 with its sources, and lists and downloads below WORK.
apt="$work/apt"
mkdir -p "$apt/parts" "$apt/preferences" "$apt/lists/partial" "$apt/cache/archives/partial" "$work/dl"
cat > "$apt/parts/debian.sources" <<END
Types: deb deb-src
URIs: $mirror
Suites: bookworm
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
END
apt() {
  apt-get -qq -o APT::Sandbox::User=root -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$apt/parts" \
    -o Dir::Etc::preferencesparts="$apt/preferences" -o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt/cache" \
    -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false -o Acquire::Languages=none "$@"
}
if [ ! -e "$work/dl/ok" ]; then
  apt update
  cd "$work/dl"
  apt download golang-$go-go golang-$go-src golang-github-modern-go-reflect2-dev
  apt source --download-only kubernetes
  touch ok
fi
src="$work/src"
if [ ! -e "$src/.unpacked" ]; then
  for package in "$work"/dl/golang-$go*.deb; do dpkg -x "$package" "$work/go"; done
  rm -rf "$src"
  # apt has checked the hashes.
  dpkg-source --no-check -x "$work"/dl/kubernetes_*.dsc "$src"
  # Its own reflect2 1.0.1, built with Go 1.18 or newer, panics on nearly every JSON body.
  dpkg -x "$work"/dl/golang-github-modern-go-reflect2-dev_*.deb "$work/reflect2"
  rm -rf "$src/vendor/github.com/modern-go/reflect2"
  cp -r "$work/reflect2/usr/share/gocode/src/github.com/modern-go/reflect2" "$src/vendor/github.com/modern-go/reflect2"
  # The kubelet reports on this tick that a pod is gone: a test that deletes pods would wait for 8 s each time.
  sed -i 's/^const syncPeriod = 10 \* time.Second/const syncPeriod = time.Second/' "$src/pkg/kubelet/status/status_manager.go"
  touch "$src/.unpacked"
fi

# As upstream built it at that time: its go.mod does not satisfy a newer Go.
export GOROOT="$work/go/usr/lib/go-$go" GOPATH="$src/.go" GOCACHE="$work/gocache" HOME="$work"
export GO111MODULE=off GOPROXY=off GOFLAGS= CGO_ENABLED=0 PATH="$work/go/usr/lib/go-$go/bin:$PATH"
mkdir -p "$src/.go/src/k8s.io"
[ -L "$src/.go/src/k8s.io/kubernetes" ] || ln -s ../../.. "$src/.go/src/k8s.io/kubernetes"
cd "$src/.go/src/k8s.io/kubernetes"
# The one generated file that upstream does not keep.
generated=pkg/generated/openapi/zz_generated.openapi.go
if [ ! -e $generated ]; then
  go build -p 1 -o "$work/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
  packages=$(grep -rl '+k8s:openapi-gen=' --include='*.go' pkg/*/ staging/src/k8s.io/*/ \
    | grep -v -e staging/src/k8s.io/code-generator -e staging/src/k8s.io/sample-apiserver -e /testdata/ | xargs -n1 dirname | sort -u \
    | sed -e 's#^staging/src/#k8s.io/kubernetes/vendor/#' -e 's#^pkg/#k8s.io/kubernetes/pkg/#' | paste -sd,)
  "$work/openapi-gen" -v 0 --logtostderr -i "$packages" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
    -h hack/boilerplate/boilerplate.generatego.txt -r "$work/violations"
fi
flags="-s -w"
for value in gitVersion=v$version gitMajor=1 gitMinor=20 gitTreeState=archive buildDate=1970-01-01T00:00:00Z; do
  for package in client-go/pkg/version component-base/version; do
    flags="$flags -X k8s.io/kubernetes/vendor/k8s.io/$package.$value"
  done
done
# Upstream's own tags: without the cloud providers and without Docker.
for program in kube-apiserver kube-controller-manager kube-scheduler kubelet; do
  go build -p 1 -trimpath -tags providerless,dockerless,selinux -ldflags "$flags" -o "$out/$program" ./cmd/$program
  date -u "+$program %T"
done
