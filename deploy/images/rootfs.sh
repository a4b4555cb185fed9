#!/bin/sh
# Installs packages and copies the files of all that came with them to /rootfs: the content of an image that has nothing
# else. The first time with what every program needs; what is added in a later stage is a layer of its own.
set -eu

installed() { dpkg-query --show --showformat '${Package}\n' | sort; }

installed >/tmp/before
apt-get install --yes --no-install-recommends "$@"
installed >/tmp/after
packages=$(comm -13 /tmp/before /tmp/after)
[ -d /rootfs ] || packages="base-files libc6 libcrypt1 libgcc-s1 libstdc++6 zlib1g $packages"
rm -rf /rootfs

mkdir -p /rootfs/usr/bin /rootfs/usr/lib /rootfs/usr/lib64 /rootfs/usr/sbin /rootfs/etc /rootfs/run /rootfs/tmp /rootfs/var
for name in bin lib lib64 sbin; do ln -s "usr/$name" "/rootfs/$name"; done
ln -s /run /rootfs/var/run
chmod 1777 /rootfs/tmp

# shellcheck disable=SC2086 # a list of names
dpkg --listfiles $packages | sort -u | while read -r file; do
  case $file in
  # Of the standard library, and of the C library, what no process uses.
  /usr/lib/python3*/pydoc_data/* | /usr/lib/python3*/lib2to3/* | */gconv/*) continue ;;
  /usr/share/bug/* | /usr/share/gcc/* | /usr/share/perl5/* | /var/run) continue ;;
  esac
  if [ -L "$file" ] || [ -f "$file" ]; then printf '%s\n' "${file#/}"; fi
done >/tmp/files
# Libraries of packages that were there before.
grep -E '\.so(\.|$)|^usr/bin/' /tmp/files | sed 's,^,/,' | xargs ldd 2>/dev/null | awk '$2 == "=>" && $3 ~ "^/" {print $3}' |
  sort -u | while read -r file; do printf '%s\n' "${file#/}" "$(readlink --canonicalize "$file" | cut -c 2-)"; done >>/tmp/files
sort -u -o /tmp/files /tmp/files
tar --create --no-recursion --files-from /tmp/files --directory / --file - | tar --extract --directory /rootfs --file -
cp /etc/group /etc/nsswitch.conf /etc/passwd /rootfs/etc/

# Packages compile their modules when they are installed: those files belong to none.
[ ! -d /rootfs/usr/lib/python3.11 ] || python3 -m compileall -q -s /rootfs -p / /rootfs/usr/lib/python3.11
