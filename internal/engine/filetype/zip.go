package filetype

import (
	"encoding/binary"
	"strings"
)

// zipChild names the format that is built on zip from the names of the first
// members, as far as their local headers lie in the head. It is a label for
// people: all of them are unpacked as zip.
func zipChild(h []byte) Type {
	for i := 0; i < 16 && len(h) >= 30 && string(h[:4]) == "PK\x03\x04"; i++ {
		flags := binary.LittleEndian.Uint16(h[6:])
		size := uint64(binary.LittleEndian.Uint32(h[18:]))
		nameLen := int(binary.LittleEndian.Uint16(h[26:]))
		extra := int(binary.LittleEndian.Uint16(h[28:]))
		if 30+nameLen > len(h) {
			break
		}
		name := string(h[30 : 30+nameLen])
		switch {
		case name == "AndroidManifest.xml", name == "classes.dex":
			return APK
		case strings.HasPrefix(name, "META-INF/MANIFEST.MF"), name == "META-INF/":
			return JAR
		case name == "[Content_Types].xml", strings.HasPrefix(name, "_rels/"), strings.HasPrefix(name, "docProps/"):
			return OOXML
		case name == "mimetype" && i == 0:
			return ODF
		}
		next := 30 + uint64(nameLen) + uint64(extra) + size
		if flags&8 != 0 || next >= uint64(len(h)) {
			break
		}
		h = h[next:]
	}
	return Zip
}
