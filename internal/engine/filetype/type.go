package filetype

// Type is a recognised content type; its text is what users see.
type Type string

// Programs and scripts.
const (
	Empty  Type = "empty"
	Data   Type = "data" // nothing known
	ELF    Type = "elf"
	PE     Type = "pe"
	DOS    Type = "dos" // MZ program without a PE header
	MachO  Type = "macho"
	Java   Type = "java" // class file
	DEX    Type = "dex"
	WASM   Type = "wasm"
	Script Type = "script" // starts with "#!"
	PHP    Type = "php"
	HTML   Type = "html"
	XML    Type = "xml"
	Text   Type = "text" // valid UTF-8 without control characters
)

// Containers that can be unpacked.
const (
	Zip   Type = "zip"
	JAR   Type = "jar"
	APK   Type = "apk"
	OOXML Type = "ooxml" // docx, xlsx, pptx
	ODF   Type = "odf"   // OpenDocument, EPUB
	Seven Type = "7z"
	Tar   Type = "tar"
	Gzip  Type = "gzip"
	Bzip2 Type = "bzip2"
	XZ    Type = "xz"
	LZMA  Type = "lzma"
	Zstd  Type = "zstd"
	LZ4   Type = "lz4"
	CPIO  Type = "cpio"
	AR    Type = "ar"
	DEB   Type = "deb"
	RPM   Type = "rpm"
)

// Containers that are recognised but not unpacked.
const (
	RAR      Type = "rar"
	CAB      Type = "cab"
	ARJ      Type = "arj"
	LHA      Type = "lha"
	Compress Type = "compress" // Unix compress, .Z
	Squashfs Type = "squashfs"
	LRZip    Type = "lrzip"
	Lzip     Type = "lzip"
	Lzop     Type = "lzop"
)

// Documents and media.
const (
	PDF   Type = "pdf"
	OLE   Type = "ole" // compound file: doc, xls, msi, msg
	RTF   Type = "rtf"
	PNG   Type = "png"
	JPEG  Type = "jpeg"
	GIF   Type = "gif"
	Media Type = "media" // RIFF, Ogg, MP4, MP3 with ID3
)

// Kind says what can be done with a type's content.
type Kind uint8

// The kinds.
const (
	// Plain content has no members (or none that are unpacked).
	Plain Kind = iota
	// Archive content needs random access to be unpacked.
	Archive
	// Stream content can be unpacked while it is read from start to end.
	Stream
	// Unsupported content is compressed in a way nothing here can unpack: what
	// is inside was not inspected.
	Unsupported
)

// Kind returns what can be done with content of the type.
func (t Type) Kind() Kind {
	switch t {
	case Zip, JAR, APK, OOXML, ODF, Seven:
		return Archive
	case Tar, Gzip, Bzip2, XZ, LZMA, Zstd, LZ4, CPIO, AR, DEB, RPM:
		return Stream
	case RAR, CAB, ARJ, LHA, Compress, Squashfs, LRZip, Lzip, Lzop:
		return Unsupported
	}
	return Plain
}

// IsZip reports whether the type is a zip archive under whatever name.
func (t Type) IsZip() bool {
	switch t {
	case Zip, JAR, APK, OOXML, ODF:
		return true
	}
	return false
}
