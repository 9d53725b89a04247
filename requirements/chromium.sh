#!/bin/sh
# Chromium for the tests, from the distribution's packages: installed where that is allowed without a question, else
# unpacked below FOLDER with a command FOLDER/bin/chromium that starts it. Nothing is done where there is one.
# usage: chromium.sh FOLDER
set -eu
folder=$1
for name in chromium chromium-browser google-chrome "$folder/bin/chromium"; do
  command -v "$name" > /dev/null && exit 0
done
command -v apt-get > /dev/null || { echo "make test: install Chromium by hand; there is no apt-get" >&2; exit 2; }

packages() {
  "$@" apt-get -o Acquire::Retries=3 update -qq
  "$@" env DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 install -y -qq --no-install-recommends chromium
}

if [ "$(id -u)" -eq 0 ]; then packages env > /dev/null; exit; fi
if sudo -n true 2> /dev/null; then packages sudo > /dev/null; exit; fi

# Without root: what is missing, and nothing else, is loaded with lists of our own and unpacked.
root=$(mkdir -p "$folder/chromium" && cd "$folder/chromium" && pwd)
mkdir -p "$root/state/lists/partial" "$root/cache/archives/partial"
apt() {
  apt-get -qq -o Acquire::Retries=3 -o Dir::State="$root/state" -o Dir::State::status=/var/lib/dpkg/status \
    -o Dir::Cache="$root/cache" -o Debug::NoLocking=1 "$@"
}
apt update
apt install -y --no-install-recommends --download-only chromium > /dev/null
for package in "$root"/cache/archives/*.deb; do dpkg-deb --extract "$package" "$root"; done
rm -r "$root/state" "$root/cache"
libraries=$(find "$root" -name 'lib*.so*' -exec dirname {} + | sort -u | paste -s -d :)
cat > "$root/fonts.conf" << EOF
<fontconfig><dir>/usr/share/fonts</dir><dir>$root/usr/share/fonts</dir><cachedir>$root/fonts</cachedir></fontconfig>
EOF
cat > "$folder/bin/chromium" << EOF
#!/bin/sh
export LD_LIBRARY_PATH="$libraries" FONTCONFIG_FILE="$root/fonts.conf"
exec "$root/usr/lib/chromium/chromium" "\$@"
EOF
chmod +x "$folder/bin/chromium"
