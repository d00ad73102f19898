#!/bin/sh
# bindist.sh NAME SRCDIR CC - for `make bindist`, in the build directory: makes
# NAME.tar.gz of bindist/ and what else runs from a home directory.
set -eu
name=$1 src=$2 cc=$3
umask 022

# The C library is the host's, as is what belongs to it.
libraries_of() {
	ldd "$@" | awk '/=> \// && !/\/(libc|libm|libresolv|libdl|librt|libpthread)\.so/ {
	    print $3 }' | sort -u
}

rm -rf "$name" "$name.tar.gz"
mkdir -m 700 "$name"
mkdir "$name/lib" "$name/doc"
for program in respool.fcgi respool-spooler respoolctl; do
	"${STRIP:-strip}" -o "$name/$program" "bindist/$program"
	chmod 755 "$name/$program"
	libraries_of "bindist/$program"
done | sort -u | while read -r library; do
	cp -L "$library" "$name/lib/"
done
# The responder opens it by its name, where auth = jwt asks for it.
jwt=$("$cc" -print-file-name=libjwt.so)
case $jwt in
/*)
	jwt=$(readlink -f "$jwt")
	cp "$jwt" "$name/lib/$(objdump -p "$jwt" | awk '/SONAME/ {print $2}')"
	libraries_of "$jwt" | while read -r library; do
		cp -L "$library" "$name/lib/"
	done ;;
esac
chmod 644 "$name"/lib/*

cp -R "$src/static/magic" "$src/share/templates" "$src/share/personas" \
    "$src/share/triage.json" "$src/models.json.example" "$src/LICENSE" "$name/"
cp -R "$src"/docs/* "$src/CHANGES.md" "$src"/man/*.8 man/respool.conf.5 \
    respool.conf.example "$name/doc/"
cp apache/htaccess "$name/htaccess"
chmod -R u+w,go-w,a+rX "$name"/*

cat >"$name/respool.conf" <<'END'
# respool.conf - relative paths begin at the directory of this file.
# doc/respool.conf.example has all settings.
spool_dir = spool
static_dir = magic
templates_dir = templates
triage_file = triage.json
personas_dir = personas
default_persona = lion_001
spooler_program = respool-spooler
log_file = respool.log
# Your models, after models.json.example; without them there is a demo.
#models_file = models.json
END

glibc=$(objdump -T "$name"/respool* "$name"/lib/* 2>/dev/null |
    grep -o 'GLIBC_[0-9.]*' | sort -u -V | tail -n 1)
cat >"$name/README" <<END
$name - for a web host where you have a directory, and neither root nor a
compiler.  It needs Linux on $(uname -m) and a C library of ${glibc#GLIBC_} or later (ldd
--version tells), and a host that runs your CGI programs as your user.

1. Unpack it in your home directory, outside of what is served:
	tar -xzf $name.tar.gz && mv $name ~/respool

2. Make a directory on the web for it; the second line writes the one path
   that has to be right:
	mkdir -p ~/public_html/chat
	sed "s|/home/YOU|\$HOME|" ~/respool/htaccess >~/public_html/chat/.htaccess
	cp ~/respool/respool.fcgi ~/public_html/chat/respool.cgi

3. Try it:
	~/respool/respoolctl -c ~/respool/respool.conf doctor https://HOST/chat
   https://HOST/chat/magic is the chat page; where the host has no mod_rewrite
   it is https://HOST/chat/respool.cgi/magic.

Settings: ~/respool/respool.conf.  API keys: files of mode 600 beside it, which
models.json names.  With auth = jwt copy lib/ to where respool.cgi is.
Certificates of providers: /etc/ssl/certs/ca-certificates.crt; where the host
has them elsewhere, say so with ca_file.

To upgrade, while answers are being written too:
	tar -xzf NEW.tar.gz -C ~/respool --strip-components=1 \\
	    --exclude='*/respool.conf'
	cp ~/respool/respool.fcgi ~/public_html/chat/new &&
	    mv ~/public_html/chat/new ~/public_html/chat/respool.cgi

More: doc/DEPLOY.md ("A shared host"), doc/OPERATIONS.md.
END
tar -czf "$name.tar.gz" --owner=0 --group=0 --numeric-owner --sort=name "$name"
rm -rf "$name"
printf '%s.tar.gz: %s bytes, needs %s\n' "$name" \
    "$(wc -c <"$name.tar.gz")" "$glibc"
