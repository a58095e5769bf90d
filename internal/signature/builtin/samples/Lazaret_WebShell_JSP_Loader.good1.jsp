<%@ page import="java.util.Base64"%>
<% String text = request.getParameter("text");
   ClassLoader loader = getClass().getClassLoader();
   out.print(Base64.getEncoder().encodeToString(text.getBytes())); %>
