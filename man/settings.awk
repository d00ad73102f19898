# settings.awk - src/conf_table.h to the mdoc list of settings of
# respool.conf(5), or with -v form=file to a respool.conf that has them all as
# comments.  A default that is a macro, SPOOL_DIR, becomes @SPOOL_DIR@.

BEGIN {
	operand["STRING"] = operand["WORDS"] = "text"
	operand["PATH"] = "path"
	operand["SECONDS"] = "seconds"
	operand["BYTES"] = "bytes"
	operand["COUNT"] = "number"
	operand["USD"] = "dollars"
	operand["AUTO"] = "seconds"
	if (form != "file")
		print ".Bl -tag -width Ds"
}

/^CONF\(/ { row = "" }
/^CONF\(/, /"\)$/ {
	sub(/^[ \t]+/, "")
	row = row (row == "" ? "" : " ") $0
	if (row ~ /"\)$/)
		setting(substr(row, 6, length(row) - 6))
}

END {
	if (form != "file")
		print ".El"
}

# What comes before the next comma of rest, which loses it.
function take(    n, item) {
	n = rest ~ /^"/ ? index(substr(rest, 2), "\"") + 2 : index(rest, ",")
	item = substr(rest, 1, n - 1)
	rest = substr(rest, n + 1)
	sub(/^ +/, "", rest)
	return item
}

function mdoc(s) {
	gsub(/\\"/, "\"", s)
	gsub(/\\/, "\\e", s)
	return s
}

# Each sentence on a line of its own, none of which is a request.
function sentences(s) {
	s = mdoc(s)
	while (match(s, /[.;:] [A-Z]/) && substr(s, RSTART, 1) == ".") {
		line(substr(s, 1, RSTART))
		s = substr(s, RSTART + 2)
	}
	line(s)
}

# Prints s in lines of at most 78 bytes.
function line(s,    n) {
	while (length(s) > 78) {
		for (n = 78; n > 1 && substr(s, n, 1) != " "; n--)
			;
		if (n == 1)
			break
		begin(substr(s, 1, n - 1))
		s = substr(s, n + 1)
	}
	begin(s)
}

function begin(s) {
	print (form == "file" ? "# " : s ~ /^[.']/ ? "\\&" : "") s
}

function amount(n, type) {
	if (type == "USD")
		return sprintf("%.12g", n / 1e12)
	if (type != "BYTES" || n == 0 || n % 1024 != 0)
		return n
	if (n % 1073741824 == 0)
		return n / 1073741824 "G"
	return n % 1048576 == 0 ? n / 1048576 "M" : n / 1024 "K"
}

function setting(s,    name, type, def, min, max) {
	rest = s
	name = take()
	type = take()
	def = take()
	min = take()
	max = take()
	if (!(type in operand)) {
		print "settings.awk: no such type: " s > "/dev/stderr"
		exit 1
	}
	if (form == "file") {
		as_comment(name, type, def)
		return
	}
	print ".It Ic " name " No = Ar " operand[type]
	sentences(substr(rest, 2, length(rest) - 2))
	if (operand[type] != "text" && operand[type] != "path") {
		print "From " amount(min, type) " to " amount(max, type) \
		    (type == "AUTO" ? ", or auto" : "") \
		    "; the default is " amount(def, type) "."
		return
	}
	# The length of a text that is one of a few words tells nobody anything.
	if (max + 0 > 20)
		print "At most " max " bytes."
	if (def ~ /^"/)
		def = substr(def, 2, length(def) - 2)
	else
		def = "@" def "@"
	if (def == "")
		print "The default is empty."
	else
		print "The default is\n." (type == "PATH" ? "Pa " : "Ql ") \
		    mdoc(def) " ."
}

function as_comment(name, type, def) {
	print ""
	line(substr(rest, 2, length(rest) - 2))
	if (def ~ /^"/)
		def = substr(def, 2, length(def) - 2)
	else if (operand[type] == "text" || operand[type] == "path")
		def = "@" def "@"
	else
		def = amount(def, type)
	print "#" name " =" (def == "" ? "" : " ") def
}
